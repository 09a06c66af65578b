//! Reading JSON straight into typed fields, without a tree in between and without losing the place.
//!
//! serde stops at the first value of a wrong type and does not say where it was. A caller wants to know:
//! `messages[2].content[0].image_url`. So every field is a [`Field`], which takes *any* JSON value and
//! remembers what was wrong with it; the deserializer itself fails on nothing but broken JSON. Values that are
//! not wanted are still walked to their ends, so that bad escapes, numbers out of range and nesting that is
//! too deep are found wherever they hide.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fault::{Checked, Fault};

/// Deepest nesting of arrays and objects in a body; also the deserializer's own limit.
pub(super) const MAX_DEPTH: u8 = 127;

/// A JSON value read as one type of ours. Each method is one JSON type; those that are not overridden say
/// that the value is of the wrong type.
pub(super) trait Value<'de>: Sized {
    /// What is expected, after "expected ": "a string".
    const EXPECTED: &'static str;

    /// From a string; borrowed when it holds no escapes.
    fn text(text: Cow<'de, str>) -> Checked<Self> {
        drop(text);
        Err(Fault::mistyped(Self::EXPECTED))
    }

    /// From true or false.
    fn boolean(_: bool) -> Checked<Self> {
        Err(Fault::mistyped(Self::EXPECTED))
    }

    /// From a number without a fraction.
    fn integer(_: i128) -> Checked<Self> {
        Err(Fault::mistyped(Self::EXPECTED))
    }

    /// From any other number; always finite.
    fn float(_: f64) -> Checked<Self> {
        Err(Fault::mistyped(Self::EXPECTED))
    }

    /// From an array, which must be read to its end.
    fn list<A: SeqAccess<'de>>(mut seq: A) -> Result<Checked<Self>, A::Error> {
        while seq.next_element_seed(Walk::WHOLE)?.is_some() {}
        Ok(Err(Fault::mistyped(Self::EXPECTED)))
    }

    /// From an object, which must be read to its end.
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Checked<Self>, A::Error> {
        walk_map(&mut map, Walk::WHOLE)?;
        Ok(Err(Fault::mistyped(Self::EXPECTED)))
    }
}

/// A field of an object.
#[derive(Debug, Default)]
pub(super) enum Field<T> {
    /// Not there.
    #[default]
    Absent,
    /// Null: for every optional field the same as not there.
    Null,
    /// There and good.
    Given(T),
    /// There and wrong.
    Bad(Box<Fault>),
}

impl<T> Field<T> {
    /// The value, if there is one; a fault is placed under `name`.
    pub(super) fn get(self, name: &str) -> Checked<Option<T>> {
        match self {
            Field::Absent | Field::Null => Ok(None),
            Field::Given(value) => Ok(Some(value)),
            Field::Bad(fault) => Err(fault.under(name)),
        }
    }

    /// The value of a required field.
    pub(super) fn need(self, name: &str) -> Checked<T> {
        self.get(name)?.ok_or_else(|| Fault::missing(name))
    }

    /// The fault of a field whose value has no effect, if it is wrong.
    pub(super) fn ignore(self, name: &str) -> Checked<()> {
        self.get(name).map(drop)
    }

    /// A fault if there is any value at all.
    pub(super) fn refuse(self, name: &str, hint: &'static str) -> Checked<()> {
        match self {
            Field::Absent | Field::Null => Ok(()),
            Field::Given(_) | Field::Bad(_) => Err(Fault::unsupported(hint).under(name)),
        }
    }
}

/// What the field macro asks of a field's type.
pub(super) trait Slot {
    /// Whether the key has not been seen yet.
    fn is_absent(&self) -> bool;
}

impl<T> Slot for Field<T> {
    fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }
}

impl<'de, T: Value<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

struct FieldVisitor<T>(PhantomData<T>);

impl<T> FieldVisitor<T> {
    fn keep<E>(checked: Checked<T>) -> Result<Field<T>, E> {
        Ok(match checked {
            Ok(value) => Field::Given(value),
            Err(fault) => Field::Bad(fault),
        })
    }
}

impl<'de, T: Value<'de>> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_unit<E: Error>(self) -> Result<Field<T>, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Field<T>, E> {
        Self::keep(T::boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Field<T>, E> {
        Self::keep(T::integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Field<T>, E> {
        Self::keep(T::integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Field<T>, E> {
        Self::keep(T::float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Field<T>, E> {
        Self::keep(T::text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Field<T>, E> {
        Self::keep(T::text(Cow::Borrowed(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Field<T>, A::Error> {
        T::list(seq).and_then(Self::keep)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Field<T>, A::Error> {
        T::object(map).and_then(Self::keep)
    }
}

impl Value<'_> for bool {
    const EXPECTED: &'static str = "true or false";

    fn boolean(value: bool) -> Checked<Self> {
        Ok(value)
    }
}

impl Value<'_> for f64 {
    const EXPECTED: &'static str = "a number";

    fn integer(value: i128) -> Checked<Self> {
        Ok(value as f64)
    }

    fn float(value: f64) -> Checked<Self> {
        Ok(value)
    }
}

/// An integer of any size JSON can say; `3.0` counts, as it does in JSON Schema.
impl Value<'_> for i128 {
    const EXPECTED: &'static str = "an integer";

    fn integer(value: i128) -> Checked<Self> {
        Ok(value)
    }

    fn float(value: f64) -> Checked<Self> {
        // Doubles hold every integer up to 2^53; beyond, the text had digits that are lost by now.
        let whole = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
        if whole { Ok(value as i128) } else { Err(Fault::mistyped(<Self as Value>::EXPECTED)) }
    }
}

impl Value<'_> for String {
    const EXPECTED: &'static str = "a string";

    fn text(text: Cow<'_, str>) -> Checked<Self> {
        Ok(text.into_owned())
    }
}

impl<'de> Value<'de> for Cow<'de, str> {
    const EXPECTED: &'static str = "a string";

    fn text(text: Cow<'de, str>) -> Checked<Self> {
        Ok(text)
    }
}

/// An array of at most `MAX` values. Reading keeps nothing after the first fault, so that an array of a
/// million wrong values costs no more memory than its text.
#[derive(Debug)]
pub(super) struct Items<T, const MAX: usize>(pub(super) Vec<T>);

impl<'de, T: Value<'de>, const MAX: usize> Value<'de> for Items<T, MAX> {
    const EXPECTED: &'static str = "an array";

    fn list<A: SeqAccess<'de>>(mut seq: A) -> Result<Checked<Self>, A::Error> {
        let mut items = Vec::new();
        let fault = loop {
            if items.len() == MAX {
                match seq.next_element_seed(Walk::WHOLE)? {
                    None => return Ok(Ok(Self(items))),
                    Some(()) => break Fault::invalid(format!("there may be at most {MAX} entries.")),
                }
            }
            match seq.next_element::<Field<T>>()? {
                None => return Ok(Ok(Self(items))),
                Some(Field::Given(item)) => items.push(item),
                Some(Field::Bad(fault)) => break fault.at(items.len()),
                Some(Field::Null | Field::Absent) => break Fault::mistyped(T::EXPECTED).at(items.len()),
            }
        };
        drop(items);
        while seq.next_element_seed(Walk::WHOLE)?.is_some() {}
        Ok(Err(fault))
    }
}

/// Any value but null; only whether it is there matters.
#[derive(Debug)]
pub(super) struct Anything;

impl<'de> Value<'de> for Anything {
    const EXPECTED: &'static str = "any value";

    fn text(_: Cow<'de, str>) -> Checked<Self> {
        Ok(Self)
    }

    fn boolean(_: bool) -> Checked<Self> {
        Ok(Self)
    }

    fn integer(_: i128) -> Checked<Self> {
        Ok(Self)
    }

    fn float(_: f64) -> Checked<Self> {
        Ok(Self)
    }

    fn list<A: SeqAccess<'de>>(mut seq: A) -> Result<Checked<Self>, A::Error> {
        while seq.next_element_seed(Walk::WHOLE)?.is_some() {}
        Ok(Ok(Self))
    }

    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Checked<Self>, A::Error> {
        walk_map(&mut map, Walk::WHOLE)?;
        Ok(Ok(Self))
    }
}

/// An object whose content has no effect on the answer.
#[derive(Debug)]
pub(super) struct AnyObject;

impl<'de> Value<'de> for AnyObject {
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Checked<Self>, A::Error> {
        walk_map(&mut map, Walk::WHOLE)?;
        Ok(Ok(Self))
    }
}

/// A value that is passed on as it was written, such as a schema.
#[derive(Debug, Default)]
pub(super) struct RawField<'de>(Option<&'de RawValue>);

impl Slot for RawField<'_> {
    fn is_absent(&self) -> bool {
        self.0.is_none()
    }
}

impl<'de> Deserialize<'de> for RawField<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self(Some(raw)))
    }
}

impl<'de> RawField<'de> {
    /// The object that was given, checked to the last byte; `depth` is the number of arrays and objects
    /// around it. Null is the same as nothing.
    pub(super) fn object(self, name: &str, depth: u8) -> Checked<Option<&'de RawValue>> {
        let Some(raw) = self.0.filter(|raw| raw.get() != "null") else { return Ok(None) };
        if !raw.get().starts_with('{') {
            return Err(Fault::mistyped("an object").under(name));
        }
        // The first pass skips over raw values without looking at escapes, number ranges and nesting.
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        match Walk(MAX_DEPTH - depth).deserialize(&mut deserializer) {
            Ok(()) => Ok(Some(raw)),
            Err(error) => {
                Err(Fault::new(crate::http::error::Code::InvalidJson, error.to_string()).under(name))
            }
        }
    }
}

/// Reads any value to its end and forgets it; holds how many more levels of nesting are allowed.
#[derive(Clone, Copy)]
pub(super) struct Walk(u8);

impl Walk {
    /// A value inside the body, whose nesting the deserializer itself counts.
    pub(super) const WHOLE: Walk = Walk(u8::MAX);

    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.0.checked_sub(1) {
            Some(left) => Ok(Walk(left)),
            None => Err(E::custom("recursion limit exceeded")),
        }
    }
}

/// Reads an object to its end and forgets it.
pub(super) fn walk_map<'de, A: MapAccess<'de>>(map: &mut A, each: Walk) -> Result<(), A::Error> {
    while map.next_key_seed(Walk::WHOLE)?.is_some() {
        map.next_value_seed(each)?;
    }
    Ok(())
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let each = self.deeper()?;
        while seq.next_element_seed(each)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let each = self.deeper()?;
        walk_map(&mut map, each)
    }
}

/// A key of an object; borrowed unless it holds escapes.
pub(super) struct Key<'de>(pub(super) Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }
}

/// A JSON object with declared keys.
pub(super) trait WireObject<'de>: Default {
    /// The keys that are read.
    #[cfg(test)]
    const KEYS: &'static [&'static str];

    /// Reads a whole object; what was read before an error stays.
    fn fill<A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error>;

    /// The key that is being read, so that broken JSON can be placed too.
    fn at(&self) -> Option<&'static str>;

    /// The fault of the object itself, if it has one: a key that is there twice, or one that is not declared.
    fn sound(&mut self) -> Checked<()>;

    /// Reads a whole object.
    fn read<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut this = Self::default();
        this.fill(&mut map)?;
        Ok(this)
    }
}

/// Declares a [`WireObject`]: `field: "its key" => type`.
macro_rules! wire_object {
    ($(#[$meta:meta])* $name:ident { $($field:ident : $key:literal => $ty:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Default)]
        pub(super) struct $name<'de> {
            $($field: $ty,)+
            fault: Option<Box<$crate::http::openai::decode::fault::Fault>>,
            at: Option<&'static str>,
            borrows: std::marker::PhantomData<&'de ()>,
        }

        impl<'de> $crate::http::openai::decode::wire::WireObject<'de> for $name<'de> {
            #[cfg(test)]
            const KEYS: &'static [&'static str] = &[$($key),+];

            fn fill<A: serde::de::MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
                use $crate::http::openai::decode::{fault::Fault, wire::{Key, Slot as _, Walk}};
                while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
                    match &*key {
                        $($key => {
                            self.at = Some($key);
                            if self.$field.is_absent() {
                                self.$field = map.next_value()?;
                            } else {
                                self.fault.get_or_insert_with(|| Fault::twice($key));
                                map.next_value_seed(Walk::WHOLE)?;
                            }
                        })+
                        other => {
                            self.at = None;
                            self.fault.get_or_insert_with(|| Fault::unsupported("").under(other));
                            map.next_value_seed(Walk::WHOLE)?;
                        }
                    }
                }
                self.at = None;
                Ok(())
            }

            fn at(&self) -> Option<&'static str> {
                self.at
            }

            fn sound(&mut self) -> $crate::http::openai::decode::fault::Checked<()> {
                self.fault.take().map_or(Ok(()), Err)
            }
        }
    };
}
pub(super) use wire_object;
