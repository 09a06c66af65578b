//! Layouts that are known when code is compiled.

use super::format::{Format, Layout};

/// A layout that is known when the code is compiled.
pub(super) trait Codec {
    /// The layout.
    const LAYOUT: Layout;
}

macro_rules! codecs {
    ($($name:ident),*) => {
        $(
            pub(super) enum $name {}

            impl Codec for $name {
                const LAYOUT: Layout = match Format::$name.layout() {
                    Some(layout) => layout,
                    None => unreachable!(),
                };
            }
        )*
    };
}

codecs!(Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K);

/// `with_codec!(format, C => a, b)` is `a` with `C` as the format's codec, or `b` for a plain format.
macro_rules! with_codec {
    ($format:expr, $codec:ident => $quantized:expr, $plain:expr) => {
        with_codec!(@ [Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K], $format, $codec => $quantized, $plain)
    };
    (@ [$($name:ident)*], $format:expr, $codec:ident => $quantized:expr, $plain:expr) => {
        match $format {
            $($crate::matrix::format::Format::$name => {
                type $codec = $crate::matrix::codec::$name;
                $quantized
            })*
            $crate::matrix::format::Format::F32
            | $crate::matrix::format::Format::F16
            | $crate::matrix::format::Format::BF16 => $plain,
        }
    };
}

pub(super) use with_codec;
