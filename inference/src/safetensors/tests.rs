#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::ErrorKind;
use crate::testing::TempModel;

fn file(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
}

fn open(bytes: &[u8]) -> Result<SafeTensors, InferenceError> {
    SafeTensors::open(TempModel::from_bytes(bytes).path())
}

#[test]
fn numbers_of_each_float_type_are_read() {
    let json = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},
        "b":{"dtype":"F16","shape":[1],"data_offsets":[8,10]},"c":{"dtype":"BF16","shape":[],"data_offsets":[10,12]},
        "d":{"dtype":"I64","shape":[1],"data_offsets":[12,20]}}"#;
    let halves = [f16::from_f32(0.5).to_le_bytes(), bf16::from_f32(-2.0).to_le_bytes()].concat();
    let data = [&1.5_f32.to_le_bytes()[..], &(-1.0_f32).to_le_bytes(), &halves, &[0; 8]].concat();
    let file = open(&file(json, &data)).unwrap();
    assert_eq!(file.load("a", &[1, 2]).unwrap(), [1.5, -1.0]);
    assert_eq!(file.load("b", &[1]).unwrap(), [0.5]);
    assert_eq!(file.load("c", &[]).unwrap(), [-2.0]);
    for (name, shape) in [("a", [2, 1].as_slice()), ("d", &[1]), ("e", &[1])] {
        assert_eq!(file.load(name, shape).unwrap_err().kind(), ErrorKind::ModelInvalid, "{name}");
    }
}

#[test]
fn a_file_that_breaks_a_rule_is_refused() {
    let one = |offsets: &str| format!(r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}}}"#);
    let shape = |shape: &str| format!(r#"{{"a":{{"dtype":"U8","shape":{shape},"data_offsets":[0,4]}}}}"#);
    let two = |first: &str, second: &str| {
        let entry =
            |name: &str, at: &str| format!(r#""{name}":{{"dtype":"U8","shape":[2],"data_offsets":{at}}}"#);
        format!("{{{},{}}}", entry("a", first), entry("b", second))
    };
    let twice = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#;
    let tables = [
        one("[0,8]"),
        one("[4,0]"),
        one("[1,5]"),
        one("[9223372036854775808,9223372036854775812]"),
        one("[18446744073709551615,3]"),
        one("[-1,3]"),
        shape("[9223372036854775808]"),
        shape("[4294967296,4294967296,4]"),
        shape("[3]"),
        shape("[1,1,1,1,1,1,1,1,4]"),
        two("[0,2]", "[1,3]"),
        two("[0,2]", "[0,2]"),
        one("[0,4]").replace("F32", "F4"),
        twice.to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        "{".repeat(100_000),
        String::new(),
    ];
    for table in tables {
        let result = open(&file(&table, &[0; 4]));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ModelInvalid, "{table:.80}");
    }
}

#[test]
fn a_length_beyond_the_file_or_the_limit_is_refused_before_it_is_believed() {
    for length in [1, 1 << 24, (1 << 24) + 1, 1 << 63, u64::MAX] {
        let result = open(&u64::to_le_bytes(length));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ModelInvalid, "{length}");
    }
    assert_eq!(open(b"short").unwrap_err().kind(), ErrorKind::ModelInvalid);
    assert_eq!(open(b"").unwrap_err().kind(), ErrorKind::ModelInvalid);
}

#[test]
fn a_file_that_is_not_there_is_unavailable() {
    for path in ["/", "/nowhere/model.safetensors"] {
        assert_eq!(SafeTensors::open(Path::new(path)).unwrap_err().kind(), ErrorKind::ModelUnavailable);
    }
}

#[test]
fn a_file_cut_short_after_it_was_opened_is_an_error() {
    let json = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let kept = TempModel::from_bytes(&file(json, &[0; 8]));
    let open = SafeTensors::open(kept.path()).unwrap();
    std::fs::write(kept.path(), file(json, &[0; 4])).unwrap();
    assert_eq!(open.load("a", &[2]).unwrap_err().kind(), ErrorKind::ModelUnavailable);
}
