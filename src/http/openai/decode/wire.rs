//! Reading JSON straight into typed fields, without a tree in between and without losing the place.
//!
//! serde stops at the first value of a wrong type and does not say where it was. A caller wants to know:
//! `messages[2].content[0].image_url`. So every field is a [`Field`], which takes *any* JSON value and
//! remembers what was wrong with it; the deserializer itself fails on nothing but broken JSON. Values that are
//! not wanted are still walked to their ends, so that bad escapes, numbers out of range and nesting that is
//! too deep are found wherever they hide.

mod object;
mod raw;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::fault::{Checked, Fault};
pub(super) use object::{Key, WireObject, wire_object};
pub(super) use raw::{RawField, Walk, walk_map};

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
