//! Values that are passed on as text, and values that are not wanted: both are read to their ends.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::fault::{Checked, Fault};
use super::Slot;
use crate::http::error::Code;

/// Deepest nesting of arrays and objects in a body; also the deserializer's own limit.
const MAX_DEPTH: u8 = 127;

/// A value that is passed on as it was written, such as a schema.
#[derive(Debug, Default)]
pub(in crate::http::openai::decode) struct RawField<'de>(Option<&'de RawValue>);

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
    pub(in crate::http::openai::decode) fn object(
        self,
        name: &str,
        depth: u8,
    ) -> Checked<Option<&'de RawValue>> {
        let Some(raw) = self.0.filter(|raw| raw.get() != "null") else { return Ok(None) };
        if !raw.get().starts_with('{') {
            return Err(Fault::mistyped("an object").under(name));
        }
        // The first pass skips over raw values without looking at escapes, number ranges and nesting.
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        match Walk(MAX_DEPTH - depth).deserialize(&mut deserializer) {
            Ok(()) => Ok(Some(raw)),
            Err(error) => Err(Fault::new(Code::InvalidJson, error.to_string()).under(name)),
        }
    }
}

/// Reads any value to its end and forgets it; holds how many more levels of nesting are allowed.
#[derive(Clone, Copy)]
pub(in crate::http::openai::decode) struct Walk(u8);

impl Walk {
    /// A value inside the body, whose nesting the deserializer itself counts.
    pub(in crate::http::openai::decode) const WHOLE: Walk = Walk(u8::MAX);

    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.0.checked_sub(1) {
            Some(left) => Ok(Walk(left)),
            None => Err(E::custom("recursion limit exceeded")),
        }
    }
}

/// Reads an object to its end and forgets it.
pub(in crate::http::openai::decode) fn walk_map<'de, A: MapAccess<'de>>(
    map: &mut A,
    each: Walk,
) -> Result<(), A::Error> {
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
