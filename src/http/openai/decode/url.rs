//! Whether an address may be given to an upstream that will fetch it.
//!
//! The upstream fetches, not this service, but an upstream inside the house could reach what the caller
//! cannot. So an address is taken only when every reader of it must come to the same public host: `https`, no
//! user part, no backslash, a host of plain ASCII letters, and an IP address only in its canonical form and
//! only when it is a global one. (WHATWG URL parsing turns `127.1`, `0x7f.1`, `2130706433` and full-width
//! digits into 127.0.0.1; here they are refused.)

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest address, in bytes; what common servers take.
const MAX_URL: usize = 8192;

/// Says what is wrong with the address, if anything.
pub(super) fn check_public(url: &str) -> Result<(), &'static str> {
    const SCHEME: &str = "https://";
    if url.len() > MAX_URL {
        return Err("the address is too long.");
    }
    let Some(rest) = url.get(..SCHEME.len()).filter(|head| head.eq_ignore_ascii_case(SCHEME)) else {
        return Err("expected a data: URL or an https URL.");
    };
    let rest = &url[rest.len()..];
    if url.bytes().any(|byte| byte <= b' ' || byte == b'\\' || byte == 0x7f) {
        return Err("the address holds spaces, backslashes or control characters.");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("the address must not hold a user name.");
    }
    let host = without_port(authority).ok_or("the address has a port that is not a number.")?;
    if is_public_host(host) { Ok(()) } else { Err("the address must name a public host.") }
}

fn without_port(authority: &str) -> Option<&str> {
    let after_bracket = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[after_bracket..].find(':') {
        None => Some(authority),
        Some(colon) => {
            let (host, port) = authority.split_at(after_bracket + colon);
            let digits = &port[1..];
            (digits.is_empty() || digits.parse::<u16>().is_ok()).then_some(host)
        }
    }
}

fn is_public_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .and_then(|inner| inner.parse::<Ipv6Addr>().ok())
            .is_some_and(is_global_v6);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if !plain || name.is_empty() || name.split('.').any(str::is_empty) {
        return false;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if is_number(last) {
        return name.parse::<Ipv4Addr>().is_ok_and(is_global_v4);
    }
    let lower = name.to_ascii_lowercase();
    let private = ["localhost", "local", "internal", "home.arpa", "localdomain"];
    lower.contains('.')
        && !private
            .iter()
            .any(|zone| lower.strip_suffix(zone).is_some_and(|head| head.is_empty() || head.ends_with('.')))
}

/// Whether a URL parser would take a host that ends in this label for an IPv4 address.
fn is_number(label: &str) -> bool {
    label.bytes().all(|byte| byte.is_ascii_digit())
        || label
            .strip_prefix("0x")
            .or_else(|| label.strip_prefix("0X"))
            .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Global unicast, after the IANA special-purpose address registry (RFC 6890).
fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240)
}

/// Inside 2000::/3 and none of the ranges in it that lead elsewhere: documentation, 6to4 and Teredo (both
/// hold an IPv4 address) and the other protocol assignments of 2001::/23. Mapped and NAT64 addresses lie
/// outside 2000::/3.
fn is_global_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let unicast = first & 0xe000 == 0x2000;
    let special = first == 0x2002
        || (first == 0x2001 && (second < 0x0200 || second == 0x0db8))
        || (first == 0x3fff && second < 0x1000);
    unicast && !special
}
