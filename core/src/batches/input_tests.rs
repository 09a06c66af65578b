use proptest::prelude::*;
use serde_json::json;

use super::*;

fn line(custom_id: &str) -> String {
    json!({
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/embeddings",
        "body": { "model": "auto", "input": "x" },
    })
    .to_string()
}

fn read(file: &str) -> Result<Vec<Place>, Vec<LineFault>> {
    let mut reader = Reader::new(Endpoint::Embeddings);
    reader.feed(file.as_bytes());
    reader.finish()
}

/// The code, field and line of each fault.
fn faults(file: &str) -> Vec<(String, Option<String>, Option<u32>)> {
    let faults = read(file).err().unwrap_or_default();
    faults.into_iter().map(|fault| (fault.code, fault.param, fault.line)).collect()
}

#[test]
fn a_place_leads_back_to_its_request() {
    let file = format!("\u{feff}{}\r\n\n  \n{}", line("a"), line("b"));
    let places = read(&file).unwrap_or_default();
    let names: Vec<&str> = places.iter().map(|place| &*place.custom_id).collect();
    assert_eq!(names, ["a", "b"]);
    for place in places {
        let from = usize::try_from(place.offset).unwrap_or_default();
        let bytes = &file.as_bytes()[from..from + place.length as usize];
        let request = parse(Endpoint::Embeddings, bytes);
        assert_eq!(request.as_ref().map(|request| &*request.custom_id), Ok(&*place.custom_id));
        assert_eq!(
            request.map(|request| request.body.get().to_owned()),
            Ok(r#"{"model":"auto","input":"x"}"#.into())
        );
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_field() {
    let with = |name: &str, value: serde_json::Value| {
        let mut line: serde_json::Value = serde_json::from_str(&line("x")).unwrap_or_default();
        line[name] = value;
        line.to_string()
    };
    let file = [
        line("a"),
        "{\"custom_id\": ".to_owned(),
        "[]".to_owned(),
        with("custom_id", json!(null)),
        with("custom_id", json!(7)),
        with("custom_id", json!("")),
        line("a"),
        with("method", json!("GET")),
        with("url", json!("/v1/chat/completions")),
        with("body", json!("text")),
        with("priority", json!(1)),
        with("body", json!({ "input": "x".repeat(LONGEST_BODY) })),
        "x".repeat(LONGEST_LINE + 1),
    ]
    .join("\n");
    let wanted = [
        ("invalid_json_line", None),
        ("invalid_json_line", None),
        ("missing_required_parameter", Some("custom_id")),
        ("invalid_value", Some("custom_id")),
        ("invalid_value", Some("custom_id")),
        ("duplicate_custom_id", Some("custom_id")),
        ("invalid_method", Some("method")),
        ("mismatched_url", Some("url")),
        ("invalid_value", Some("body")),
        ("unknown_parameter", None),
        ("request_too_large", Some("body")),
        ("request_too_large", None),
    ];
    let wanted: Vec<_> = (2..)
        .zip(wanted)
        .map(|(line, (code, param))| (code.to_owned(), param.map(str::to_owned), Some(line)))
        .collect();
    assert_eq!(faults(&file), wanted);
}

#[test]
fn a_file_without_requests_or_with_too_many_is_refused() {
    for empty in ["", "\n", " \r\n\n"] {
        assert_eq!(faults(empty), [("empty_file".to_owned(), None, None)]);
    }
    let many: String = (0..MOST + 5).map(|n| line(&n.to_string()) + "\n").collect();
    let beyond = u32::try_from(MOST + 1).ok();
    assert_eq!(faults(&many), [("too_many_requests".to_owned(), None, beyond)]);
}

#[test]
fn faults_are_told_up_to_a_number() {
    assert_eq!(faults(&"x\n".repeat(1000)).len(), MOST_FAULTS);
}

proptest! {
    /// A file is the same in whatever pieces it comes.
    #[test]
    fn pieces_make_no_difference(
        kinds in proptest::collection::vec(0..5_u8, 0..12),
        cuts in proptest::collection::vec(0..2000_usize, 0..10),
    ) {
        let lines: Vec<String> = kinds.iter().enumerate().map(|(n, kind)| match kind {
            0 => String::new(),
            1 => "{".to_owned(),
            2 => line("twice"),
            _ => line(&format!("ü{n}")),
        }).collect();
        let file = lines.join("\n");
        let mut reader = Reader::new(Endpoint::Embeddings);
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= file.len()).collect();
        cuts.sort_unstable();
        let mut from = 0;
        for cut in cuts.into_iter().chain([file.len()]) {
            reader.feed(&file.as_bytes()[from..cut]);
            from = cut;
        }
        prop_assert_eq!(reader.finish(), read(&file));
    }
}
