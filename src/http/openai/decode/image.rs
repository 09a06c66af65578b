//! Images in a request: where they may be, and whether inline ones are what they claim.
//!
//! Pixels are not decoded here; that is the model's work. But a header that promises a billion pixels, a file
//! that stops in the middle or a film in place of a picture would hit the decoder of some upstream, so sizes,
//! frames and ends are read from the container.

mod container;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opossum_core::request::ImageSource;

use super::fault::{Checked, Fault};
use super::url;
use crate::http::error::Code;

/// The source behind an image address: inline data, checked, or a public `https` address.
pub(super) fn source(address: &str) -> Checked<ImageSource> {
    match address.split_at_checked(5) {
        Some((scheme, data)) if scheme.eq_ignore_ascii_case("data:") => {
            inline(data).map_err(|detail| Fault::new(Code::InvalidImage, detail))
        }
        _ => match url::check_public(address) {
            Ok(()) => Ok(ImageSource::Url(address.to_owned())),
            Err(detail) => Err(Fault::new(Code::InvalidImageUrl, detail)),
        },
    }
}

/// Data of the form `image/png;base64,...`.
fn inline(data: &str) -> Result<ImageSource, &'static str> {
    const FORM: &str = "expected data:image/TYPE;base64,DATA with TYPE png, jpeg, webp or gif.";
    let (head, base64) = data.split_once(',').ok_or(FORM)?;
    let (media_type, encoding) = head.split_once(';').ok_or(FORM)?;
    if !encoding.eq_ignore_ascii_case("base64") {
        return Err(FORM);
    }
    let kind = match media_type.to_ascii_lowercase().as_str() {
        "image/png" => Kind::Png,
        "image/jpeg" | "image/jpg" => Kind::Jpeg,
        "image/webp" => Kind::Webp,
        "image/gif" => Kind::Gif,
        _ => return Err(FORM),
    };
    let bytes = STANDARD.decode(base64).map_err(|_| "the data is not standard base64 with padding.")?;
    container::check(kind, &bytes)?;
    Ok(ImageSource::Inline { mime: kind.mime().to_owned(), base64: base64.to_owned() })
}

/// The image formats that every vision backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Png,
    Jpeg,
    Webp,
    Gif,
}

impl Kind {
    fn mime(self) -> &'static str {
        match self {
            Kind::Png => "image/png",
            Kind::Jpeg => "image/jpeg",
            Kind::Webp => "image/webp",
            Kind::Gif => "image/gif",
        }
    }
}
