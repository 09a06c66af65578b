//! Objects with declared keys.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::super::fault::Checked;

/// A key of an object; borrowed unless it holds escapes.
pub(in crate::http::openai::decode) struct Key<'de>(pub(in crate::http::openai::decode) Cow<'de, str>);

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
pub(in crate::http::openai::decode) trait WireObject<'de>: Default {
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
pub(in crate::http::openai::decode) use wire_object;
