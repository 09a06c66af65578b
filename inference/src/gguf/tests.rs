#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::testing::{GgufWriter, TinyLlama};
use crate::{ErrorKind, InferenceError};

fn decoded(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    let mut numbers = vec![0.0; bytes.len() / kind.block_bytes() * kind.block_len()];
    dequantize(kind, bytes, &mut numbers).unwrap();
    numbers
}

/// The half-precision bytes of 0.5 and -2.
const HALF: [u8; 2] = [0x00, 0x38];
const MINUS_TWO: [u8; 2] = [0x00, 0xc0];

#[test]
fn floats_of_every_width() {
    assert_eq!(decoded(TensorType::F32, &1.25_f32.to_le_bytes()), [1.25]);
    assert_eq!(decoded(TensorType::F16, &[HALF, MINUS_TWO].concat()), [0.5, -2.0]);
    assert_eq!(decoded(TensorType::Bf16, &[0x80, 0x3f, 0x20, 0xc0]), [1.0, -2.5]);
}

#[test]
fn blocks_worked_out_by_hand() {
    let mut nibbles = [0_u8; 16];
    nibbles[0] = 0xf1;
    let q4_0 = decoded(TensorType::Q4_0, &[&HALF[..], &nibbles].concat());
    assert_eq!((q4_0[0], q4_0[16], q4_0[1]), (-3.5, 3.5, -4.0));
    let q4_1 = decoded(TensorType::Q4_1, &[&HALF[..], &MINUS_TWO, &nibbles].concat());
    assert_eq!((q4_1[0], q4_1[16], q4_1[1]), (-1.5, 5.5, -2.0));
    // Fifth bits of numbers 0 and 17: 1 + 16 - 16 = 1 and 0 + 16 - 16 = 0.
    let fifth = (1_u32 | (1 << 17)).to_le_bytes();
    let q5_0 = decoded(TensorType::Q5_0, &[&HALF[..], &fifth, &nibbles].concat());
    assert_eq!((q5_0[0], q5_0[16], q5_0[17], q5_0[1]), (0.5, -0.5, 0.0, -8.0));
    let mut bytes = [0_u8; 32];
    (bytes[0], bytes[31]) = (127, 0x80);
    let q8_0 = decoded(TensorType::Q8_0, &[&HALF[..], &bytes].concat());
    assert_eq!((q8_0[0], q8_0[31], q8_0[1]), (63.5, -64.0, 0.0));
}

#[test]
fn random_blocks_are_read_as_the_reference_package_reads_them() {
    #[derive(Deserialize)]
    struct Case {
        kind: String,
        bytes: String,
        numbers: Vec<f32>,
    }
    let mut seen = 0;
    for line in include_str!("fixtures/blocks.jsonl").lines().skip(1) {
        let case: Case = serde_json::from_str(line).unwrap();
        let kind = TensorType::ALL.into_iter().find(|kind| kind.to_string() == case.kind).unwrap();
        let hex = case.bytes.as_bytes().chunks(2);
        let bytes: Vec<u8> =
            hex.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        for (ours, theirs) in decoded(kind, &bytes).iter().zip(&case.numbers) {
            assert!((ours - theirs).abs() <= 1e-6 * theirs.abs().max(1.0), "{kind}: {ours} is not {theirs}");
        }
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn lengths_that_do_not_belong_together_are_refused() {
    assert!(dequantize(TensorType::Q4_0, &[0; 17], &mut [0.0; 32]).is_err());
    assert!(dequantize(TensorType::Q4_0, &[0; 18], &mut [0.0; 31]).is_err());
}

fn small() -> GgufWriter {
    let mut writer = GgufWriter::default();
    writer.set("general.architecture", Value::String("llama".into()));
    writer.set("list", Value::Array(Array::Strings(vec!["a".into(), "é".into()])));
    writer.set("bools", Value::Array(Array::Bools(vec![true, false])));
    writer.set("floats", Value::Array(Array::Floats(vec![1.5])));
    writer.set("minus", Value::Signed(-3));
    writer.tensor("a", &[4, 2], TensorType::F32, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).unwrap();
    writer.tensor("b", &[32], TensorType::Q8_0, &[0.0; 32]).unwrap();
    writer
}

fn reason(bytes: &[u8]) -> String {
    match Header::parse(bytes) {
        Err(InferenceError::ModelInvalid { reason }) => reason,
        other => format!("{other:?}"),
    }
}

#[test]
fn a_written_file_is_read_back() {
    let bytes = small().finish();
    let header = Header::parse(&bytes).unwrap();
    assert_eq!(header.metadata.string("general.architecture"), Some("llama"));
    assert_eq!(header.metadata.strings("list").unwrap(), ["a", "é"]);
    assert_eq!(header.metadata.get("minus"), Some(&Value::Signed(-3)));
    assert_eq!(header.metadata.unsigned("minus"), None);
    let a = &header.tensors["a"];
    assert_eq!((a.dims.as_slice(), a.kind, a.elements), ([4, 2].as_slice(), TensorType::F32, 8));
    assert_eq!(decoded(a.kind, &bytes[a.range.clone()])[7], 8.0);
}

#[test]
fn what_is_no_gguf_is_refused() {
    for bytes in [&b""[..], b"GGU", b"PK\x03\x04aaaaaaaaaaaaaaaaaaaaaa", b"{\"error\": \"not found\"}"] {
        assert_eq!(reason(bytes), "this is not a GGUF file");
    }
    let mut old = small().finish();
    old[4] = 1;
    assert!(reason(&old).contains("version 1"));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = small().finish();
    for length in 0..bytes.len() - 1 {
        // The last bytes are padding behind the last tensor, which nobody needs.
        if let Ok(header) = Header::parse(&bytes[..length]) {
            assert!(header.tensors.values().all(|tensor| tensor.range.end <= length));
        }
    }
    assert!(reason(&bytes[..bytes.len() - 64]).contains("outside the file"));
}

#[test]
fn sizes_that_lie_are_refused_before_anything_is_allocated() {
    let patched = |at: usize, value: u64| {
        let mut bytes = small().finish();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        reason(&bytes)
    };
    assert!(patched(8, u64::MAX).contains("tensor count"));
    assert!(patched(8, MAX_TENSORS as u64 + 1).contains("tensor count"));
    assert!(patched(16, 1 << 40).contains("metadata count"));
    // The length of the first key.
    assert!(patched(24, u64::MAX).contains("string length"));
    assert!(patched(24, 1 << 21).contains("ends early"));
}

#[test]
fn arrays_and_types_are_checked() {
    let with = |body: &[u8]| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.push(b'k');
        bytes.extend(body);
        reason(&bytes)
    };
    let array = |element: u32, count: u64| {
        [&9_u32.to_le_bytes()[..], &element.to_le_bytes(), &count.to_le_bytes(), &[0; 40]].concat()
    };
    assert!(with(&array(8, 1 << 50)).contains("array length"));
    assert!(with(&array(4, 11)).contains("array length"));
    assert!(with(&array(9, 1)).contains("nested"));
    assert!(with(&array(77, 1)).contains("type 77"));
    assert!(with(&13_u32.to_le_bytes()).contains("type 13"));
    assert!(with(&[7, 0, 0, 0, 2]).contains("truth value"));
    assert!(with(&[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff]).contains("UTF-8"));
}

#[test]
fn tensors_must_be_whole_distinct_aligned_and_apart() {
    let tensor = |name: &str, dims: &[u64], code: u32, offset: u64| {
        let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.extend((dims.len() as u32).to_le_bytes());
        bytes.extend(dims.iter().flat_map(|extent| extent.to_le_bytes()));
        bytes.extend(code.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes
    };
    let file = |tensors: &[Vec<u8>]| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((tensors.len() as u64).to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(32) + 256, 0);
        reason(&bytes)
    };
    assert!(file(&[tensor("t", &[8], 0, 0), tensor("u", &[8], 0, 32)]).starts_with("Ok"));
    assert!(file(&[tensor("t", &[8], 0, 0), tensor("u", &[8], 0, 0)]).contains("overlap"));
    assert!(file(&[tensor("t", &[16], 0, 0), tensor("u", &[8], 0, 32)]).contains("overlap"));
    assert!(file(&[tensor("t", &[8], 0, 0), tensor("t", &[8], 0, 32)]).contains("twice"));
    assert!(file(&[tensor("t", &[8], 0, 4)]).contains("aligned"));
    assert!(file(&[tensor("t", &[8], 0, 256)]).contains("outside"));
    assert!(file(&[tensor("t", &[8], 0, u64::MAX - 31)]).contains("outside"));
    assert!(file(&[tensor("t", &[1 << 40, 1 << 40], 0, 0)]).contains("impossible"));
    assert!(file(&[tensor("t", &[0], 0, 0)]).contains("impossible"));
    assert!(file(&[tensor("t", &[33], 8, 0)]).contains("impossible"));
    assert!(file(&[tensor("t", &[8], 99, 0)]).contains("type 99"));
    assert!(file(&[tensor("t", &[], 0, 0)]).contains("dimensions"));
    assert!(file(&[tensor("t", &[1; 5], 0, 0)]).contains("dimensions"));
    assert!(file(&[tensor("", &[8], 0, 0)]).contains("name"));
}

#[test]
fn a_bad_alignment_is_refused() {
    for alignment in [0, 1, 24, 1 << 20] {
        let mut writer = GgufWriter::default();
        writer.set("general.alignment", Value::Unsigned(alignment));
        assert!(reason(&writer.finish()).contains("alignment"), "{alignment}");
    }
}

#[test]
fn an_absent_file_is_unavailable_and_a_folder_too() {
    let folder = std::env::temp_dir();
    for path in [folder.join("no-such-model.gguf"), folder] {
        assert_eq!(
            GgufFile::open(&path).map_err(|error| error.kind()).err(),
            Some(ErrorKind::ModelUnavailable)
        );
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tail);
        prop_assert!(Header::parse(&bytes).map_or(true, |header| within(&header, bytes.len())));
    }

    #[test]
    fn flipped_bits_never_panic_nor_reach_outside(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6),
    ) {
        let mut bytes = small().finish();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        prop_assert!(Header::parse(&bytes).map_or(true, |header| within(&header, bytes.len())));
    }

    #[test]
    fn a_damaged_model_is_loaded_or_refused(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
    ) {
        let mut bytes = TinyLlama::default().to_bytes().unwrap();
        // Only the part that describes the model: flipped weights are as good as any.
        let described = bytes.len() / 3;
        for (at, bit) in flips {
            bytes[at.index(described)] ^= 1 << bit;
        }
        if let Ok(header) = Header::parse(&bytes) {
            prop_assert!(within(&header, bytes.len()));
            let _ = crate::tokenizer::Tokenizer::from_metadata(&header.metadata);
        }
    }
}

/// Every tensor lies in the file, and its numbers take at most 16 times the file's size.
fn within(header: &Header, file_len: usize) -> bool {
    header.tensors.values().all(|tensor| tensor.range.end <= file_len && tensor.elements <= file_len * 4)
}
