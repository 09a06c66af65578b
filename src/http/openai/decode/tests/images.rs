//! Faults S3 and S4: addresses that lead into the house, and images that are not what they claim.

use opossum_core::request::{Content, Image, ImageSource, Part};

use super::*;

const PARAM: &str = "messages[0].content[0].image_url";

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&length, kind.as_slice(), data, &[0; 4]].concat()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", &[1, 2, 3]), chunk(b"IEND", &[])]
        .concat()
}

fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let size = [height.to_be_bytes(), width.to_be_bytes()].concat();
    let app = [0xff, 0xe0, 0, 4, 1, 2];
    let frame = [&[0xff, 0xff, 0xc0, 0, 11, 8][..], &size, &[1, 1, 0x11, 0]].concat();
    [&[0xff, 0xd8][..], &app, &frame, &[0xff, 0xda, 0, 2, 9, 9, 9, 0xff, 0xd9, 0]].concat()
}

fn gif(frames: usize) -> Vec<u8> {
    let screen = [b"GIF89a".as_slice(), &[4, 0, 4, 0, 0x80, 0, 0], &[0; 6]].concat();
    let extension = [0x21, 0xf9, 4, 0, 0, 0, 0, 0];
    let frame = [0x2c, 0, 0, 0, 0, 4, 0, 4, 0, 0, 2, 2, 0x4c, 1, 0];
    [screen, [&extension[..], &frame].concat().repeat(frames), vec![0x3b]].concat()
}

fn webp(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes();
    let body = [b"WEBP".as_slice(), kind, &length(data.len()), data].concat();
    [b"RIFF".as_slice(), &length(body.len()), &body].concat()
}

fn data_url(mime: &str, bytes: &[u8]) -> String {
    use base64::Engine as _;
    format!("data:{mime};base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[track_caller]
fn invalid_image(mime: &str, bytes: &[u8], why: &str) {
    let error = bad(image_at(&data_url(mime, bytes)));
    check(&error, Code::InvalidImage, PARAM);
    assert!(error.message.contains(why), "{error}");
}

#[test]
fn inline_images_of_all_four_types_are_taken() {
    let lossy = webp(b"VP8 ", &[0, 0, 0, 0x9d, 1, 0x2a, 4, 0, 4, 0]);
    let lossless = webp(b"VP8L", &[0x2f, 3, 0xc0, 0, 0]);
    for (mime, bytes) in [
        ("image/png", png(4096, 4096)),
        ("image/jpeg", jpeg(4, 4)),
        ("image/gif", gif(1)),
        ("image/webp", lossy),
        ("image/webp", lossless),
    ] {
        let body = image_at(&data_url(mime, &bytes));
        let Prompt::Chat(messages) = good(&body).request.prompt else { panic!("not a chat") };
        let Content::Parts(parts) = &messages[0].content else { panic!("no parts") };
        let Part::Image(Image { source: ImageSource::Inline { mime: got, base64 }, detail: None }) =
            &parts[0]
        else {
            panic!("not inline")
        };
        assert_eq!(got, mime);
        assert!(data_url(mime, &bytes).ends_with(base64.as_str()));
    }
    let decoded = good(&image_at(&data_url("IMAGE/jpg", &jpeg(1, 1)).replace("data:", "DATA:")));
    assert!(format!("{:?}", decoded.request.prompt).contains("image/jpeg"));
}

#[test]
fn inline_images_that_are_not_what_they_claim_are_refused() {
    invalid_image("image/png", &png(60_000, 60_000), "4096");
    invalid_image("image/png", &png(0, 4), "damaged");
    invalid_image("image/png", &png(4, 4)[..40], "cut off");
    invalid_image("image/png", b"", "type");
    invalid_image("image/png", &jpeg(4, 4), "type");
    invalid_image("image/jpeg", &jpeg(65_535, 65_535), "4096");
    invalid_image("image/jpeg", &jpeg(4, 4)[..24], "cut off");
    invalid_image("image/gif", &gif(10_000), "animated");
    invalid_image("image/gif", &gif(0), "damaged");
    invalid_image("image/gif", &gif(1)[..20], "cut off");
    invalid_image("image/webp", &webp(b"VP8X", &[2, 0, 0, 0, 3, 0, 0, 3, 0, 0]), "animated");
    invalid_image("image/webp", &webp(b"VP8X", &[0, 0, 0, 0, 255, 255, 255, 255, 255, 255]), "4096");
    invalid_image("image/webp", &webp(b"VP8L", &[0; 5]), "damaged");
    invalid_image("image/svg+xml", b"<!DOCTYPE svg [<!ENTITY a 'a'>]><svg/>", "png, jpeg");
    let header = [4u32.to_be_bytes(), 4u32.to_be_bytes()].concat();
    let moving = [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"acTL", &[0; 8])].concat();
    invalid_image("image/png", &moving, "animated");
}

#[test]
fn data_urls_of_another_form_are_refused() {
    for url in [
        "data:",
        "data:,hello",
        "data:image/png,abc",
        "data:image/png;base64",
        "data:image/png;charset=utf-8;base64,AAAA",
        "data:image/png;base64,AAA",
        "data:image/png;base64,AA==AA",
        "data:image/png;base64,AA AA",
        "data:image/png;base64,_-__",
    ] {
        refused(image_at(url), Code::InvalidImage, PARAM);
    }
}

#[test]
fn public_https_addresses_are_passed_on() {
    for url in [
        "https://example.org/a.png",
        "HTTPS://Example.org:8443/a?b=c#d",
        "https://8.8.8.8/a",
        "https://[2606:4700::1111]:443/a",
        "https://1and1.example/a@b",
        "https://xn--bcher-kva.example",
    ] {
        let decoded = good(&image_at(url));
        assert!(format!("{:?}", decoded.request.prompt).contains(url));
    }
}

#[test]
fn other_addresses_are_refused() {
    for url in [
        "",
        "example.org/a.png",
        "http://example.org/a.png",
        "file:///etc/passwd",
        "gopher://example.org/",
        "ftp://example.org/a.png",
        "https:/example.org",
        "https://",
        "https:///a.png",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://017700000001/",
        "https://127.0.0.1./",
        "https://1.2.3.4.5/",
        "https://10.0.0.1/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[fe80::1]/",
        "https://[fc00::1]/",
        "https://[2002:7f00:1::]/",
        "https://[2001:db8::1]/",
        "https://[::1/",
        "https://localhost/",
        "https://LOCALHOST:8000/",
        "https://x.localhost./",
        "https://metadata.google.internal/",
        "https://redis/",
        "https://user@example.org/",
        "https://example.org@127.0.0.1/",
        "https://example.org\\@127.0.0.1/",
        "https://example.org:99999/",
        "https://example.org:80a/",
        "https://exa mple.org/",
        "https://example.org/\r\nHost: x",
        "https://１２７.0.0.1/",
        "https://%31%32%37.0.0.1/",
        "https://a..example/",
    ] {
        refused(image_at(url), Code::InvalidImageUrl, PARAM);
    }
    refused(image_at(&format!("https://example.org/{}", "a".repeat(9000))), Code::InvalidImageUrl, PARAM);
}
