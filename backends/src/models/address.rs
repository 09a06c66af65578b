//! Addresses that a download may go to.

use http::Uri;

use super::error::SourceError;

/// An address we may ask: `http` or `https`, without a credential; a fragment is left out.
pub(super) fn address(url: &str) -> Result<Uri, SourceError> {
    let bare = url.split('#').next().unwrap_or(url);
    let uri: Uri = bare.parse().map_err(|_| SourceError::Address("it is not a URL"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(SourceError::Address("it is neither http nor https")),
    }
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(SourceError::Address("it holds a credential"));
    }
    Ok(uri)
}

/// A redirect's target as an absolute address (RFC 3986, 5.2, without dot segments, which no server sends).
pub(super) fn resolve(from: &Uri, location: &str) -> Result<Uri, SourceError> {
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |a| a.as_str());
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri = address(&absolute)?;
    if scheme == "https" && uri.scheme_str() != Some("https") {
        return Err(SourceError::Address("it leads from https to http"));
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn redirects_resolve_and_never_downgrade() {
        let from = |url: &str, to: &str| {
            resolve(&url.parse().unwrap(), to).map(|u| u.to_string()).map_err(|e| e.to_string())
        };
        let base = "https://a.example/x/y?q=1";
        assert_eq!(from(base, "https://b.example/z").unwrap(), "https://b.example/z");
        assert_eq!(from(base, "//b.example/z#f").unwrap(), "https://b.example/z");
        assert_eq!(from(base, "/z?w").unwrap(), "https://a.example/z?w");
        assert_eq!(from(base, "z").unwrap(), "https://a.example/x/z");
        assert!(from(base, "http://b.example/z").unwrap_err().contains("https to http"));
        assert!(from(base, "file:///etc/passwd").is_err());
        assert!(from(base, "https://u:p@b.example/z").unwrap_err().contains("credential"));
        assert_eq!(from("http://a.example/x", "http://b.example/").unwrap(), "http://b.example/");
    }
}
