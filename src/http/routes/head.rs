//! The headers of every answer.

use actix_web::HttpResponseBuilder;
use actix_web::http::header::{HeaderName, HeaderValue};

use crate::http::request_id;
use crate::service::AnswerMeta;

/// Adds the headers that say who answered and how.
pub(super) fn answer_head(response: &mut HttpResponseBuilder, meta: &AnswerMeta, request_id: &str) {
    let mut put = |name: &'static str, value: &str| {
        // Names of services and models come from the configuration or an upstream; one that cannot stand in a
        // header is left out rather than failing the answer.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.insert_header((HeaderName::from_static(name), value));
        }
    };
    put(request_id::HEADER, request_id);
    put("x-opossum-backend", meta.arm.id.service.as_str());
    put("x-opossum-model", meta.arm.id.model.as_str());
    put("x-opossum-attempts", itoa(meta.attempts, &mut [0; 10]));
    put("x-opossum-cache", meta.cache.as_str());
    if meta.degraded {
        put("x-opossum-degraded", "true");
    }
    put("server-timing", &server_timing(meta));
}

fn server_timing(meta: &AnswerMeta) -> String {
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1000.0;
    let t = &meta.timing;
    format!(
        "queue;dur={:.2}, cache;dur={:.2}, route;dur={:.3}, upstream;dur={:.2}",
        ms(t.queue),
        ms(t.cache),
        ms(t.route),
        ms(t.upstream)
    )
}

/// A number as text, without an allocation.
fn itoa(mut number: u32, digits: &mut [u8; 10]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[at..]).unwrap_or("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_whole() {
        for n in [0, 7, 10, 4_294_967_295] {
            assert_eq!(itoa(n, &mut [0; 10]), n.to_string());
        }
    }
}
