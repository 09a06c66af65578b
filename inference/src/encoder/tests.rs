#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, mpsc};

use super::*;
use crate::ErrorKind;
use crate::sampler::split_mix_64;

const WORDS: [&str; 10] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "##s", "on", "mat"];
const CONFIG: &str = r#"{"model_type":"bert","hidden_act":"gelu","hidden_size":32,"intermediate_size":64,
    "num_attention_heads":4,"num_hidden_layers":2,"vocab_size":10,"max_position_embeddings":16,"type_vocab_size":2,
    "layer_norm_eps":1e-12}"#;

/// A folder with a tiny random model, removed when this value is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tiny-bert-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Self(path);
        folder.put("config.json", CONFIG.as_bytes());
        folder.put("tokenizer.json", tokenizer().to_string().as_bytes());
        folder.put("model.safetensors", &weights());
        folder
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    fn config(&self) -> EncoderConfig {
        EncoderConfig { device: DeviceChoice::Cpu, threads: 1, ..EncoderConfig::new(&self.0) }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tokenizer() -> serde_json::Value {
    let vocab: serde_json::Map<_, _> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let mark = |name: &str, id: usize| serde_json::json!({"id": name, "ids": [id], "tokens": [name]});
    let special = |name: &str| serde_json::json!({"SpecialToken": {"id": name, "type_id": 0}});
    serde_json::json!({
        "version": "1.0", "added_tokens": [],
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]"},
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]")],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": mark("[CLS]", 2), "[SEP]": mark("[SEP]", 3)}},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

/// Random weights as a safetensors file.
fn weights() -> Vec<u8> {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![10, 32]),
        ("embeddings.position_embeddings.weight".into(), vec![16, 32]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, 32]),
        ("embeddings.LayerNorm.weight".into(), vec![32]),
        ("embeddings.LayerNorm.bias".into(), vec![32]),
        ("pooler.dense.bias".into(), vec![32]),
    ];
    for layer in 0..2 {
        for (part, inputs, outputs) in [
            ("attention.self.query", 32, 32),
            ("attention.self.key", 32, 32),
            ("attention.self.value", 32, 32),
            ("attention.output.dense", 32, 32),
            ("intermediate.dense", 32, 64),
            ("output.dense", 64, 32),
        ] {
            shapes.push((format!("encoder.layer.{layer}.{part}.weight"), vec![outputs, inputs]));
            shapes.push((format!("encoder.layer.{layer}.{part}.bias"), vec![outputs]));
        }
        for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
            shapes.push((format!("encoder.layer.{layer}.{part}.weight"), vec![32]));
            shapes.push((format!("encoder.layer.{layer}.{part}.bias"), vec![32]));
        }
    }
    let mut seed = 7;
    let (mut table, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in shapes {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            let number = (split_mix_64(&mut seed) - 0.5) as f32 * 0.6;
            data.extend(number.to_le_bytes());
        }
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        table.insert(name, entry);
    }
    let table = serde_json::Value::Object(table).to_string();
    [&(table.len() as u64).to_le_bytes(), table.as_bytes(), &data].concat()
}

type Replies = mpsc::Receiver<Result<Encoded, InferenceError>>;

fn job(inputs: Vec<EncodeInput>, truncate: bool) -> (EncodeJob, Replies) {
    let (send, receive) = mpsc::channel();
    let reply = Box::new(move |result| send.send(result).unwrap());
    (EncodeJob { inputs, truncate, reply, cancelled: Box::new(|| false) }, receive)
}

fn encode(encoder: &Encoder, inputs: &[&str], truncate: bool) -> Result<Encoded, InferenceError> {
    let (job, reply) =
        job(inputs.iter().map(|text| EncodeInput::Text((*text).to_owned())).collect(), truncate);
    encoder.submit(job).unwrap();
    reply.recv().unwrap()
}

#[test]
fn an_input_gives_the_same_vector_alone_and_in_a_batch() {
    let folder = Folder::new();
    let encoder = Encoder::start(folder.config()).unwrap();
    let texts = ["The cat", "cats sat on the mat", "mat"];
    let together = encode(&encoder, &texts, false).unwrap();
    assert_eq!(together.prompt_tokens, 4 + 8 + 3);
    for (text, vector) in texts.iter().zip(&together.vectors) {
        let length: f32 = vector.iter().map(|number| number * number).sum();
        assert!((length - 1.0).abs() < 1e-5);
        let alone = &encode(&encoder, &[text], false).unwrap().vectors[0];
        let apart = vector.iter().zip(alone).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "{text}: {apart}");
    }
    let distance: f32 =
        together.vectors[0].iter().zip(&together.vectors[2]).map(|(one, other)| (one - other).abs()).sum();
    assert!(distance > 1e-3, "different texts have different vectors");
}

#[test]
fn kernels_give_what_stock_tensor_operations_give() {
    let folder = Folder::new();
    let mut fast = load::load(&folder.config()).unwrap();
    let sequences: [&[u32]; 3] = [&[2, 4, 5, 3], &[2, 9, 3], &[2, 4, 5, 7, 6, 8, 4, 9, 3]];
    let with_kernels = fast.bert.forward(&sequences).unwrap();
    let matrices = fast.bert.place.kernels.take();
    assert!(matrices.is_some());
    // Attention, norms and activation are stock operations now; the matrices are compared by the next lines.
    let stock = fast.bert.forward(&sequences).unwrap();
    let reference = load::load_on(&folder.config(), false).unwrap().bert.forward(&sequences).unwrap();
    assert_eq!(with_kernels.len(), 3 * 32);
    for other in [stock, reference] {
        let apart =
            with_kernels.iter().zip(&other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4, "{apart}");
    }
}

#[test]
fn token_ids_stand_for_the_text_they_spell() {
    let folder = Folder::new();
    let encoder = Encoder::start(folder.config()).unwrap();
    let (job, reply) = job(vec![EncodeInput::Tokens(vec![4, 5])], false);
    encoder.submit(job).unwrap();
    assert_eq!(reply.recv().unwrap().unwrap(), encode(&encoder, &["the cat"], false).unwrap());
}

#[test]
fn inputs_that_cannot_be_embedded_are_errors_that_name_them() {
    let folder = Folder::new();
    let encoder = Encoder::start(folder.config()).unwrap();
    for inputs in [
        vec![],
        vec![EncodeInput::Text(String::new())],
        vec![EncodeInput::Tokens(vec![])],
        vec![EncodeInput::Tokens(vec![4]), EncodeInput::Tokens(vec![10])],
    ] {
        let (job, reply) = job(inputs, true);
        encoder.submit(job).unwrap();
        match reply.recv().unwrap() {
            Err(InferenceError::BadParameter { name: "input", .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let long = "cat ".repeat(15);
    let error = encode(&encoder, &["the", &long], false).unwrap_err();
    assert_eq!(error, InferenceError::ContextLengthExceeded { prompt: 17, max: 16 });
    assert_eq!(encode(&encoder, &[&long], true).unwrap().prompt_tokens, 16);
}

#[test]
fn a_panic_fails_the_jobs_in_the_batch_and_the_next_one_works() {
    let folder = Folder::new();
    let fault = Arc::new(AtomicBool::new(true));
    let hook = Arc::clone(&fault);
    let hook = FaultHook(Arc::new(move || assert!(!hook.swap(false, Ordering::Relaxed), "made to fail")));
    let encoder = Encoder::start(EncoderConfig { fault: Some(hook), ..folder.config() }).unwrap();
    assert_eq!(encode(&encoder, &["cat"], false).unwrap_err().kind(), ErrorKind::EnginePanicked);
    assert_eq!(encode(&encoder, &["cat"], false).unwrap().vectors.len(), 1);
}

#[test]
fn the_queue_is_bounded_and_a_job_nobody_waits_for_costs_nothing() {
    let folder = Folder::new();
    let batches = Arc::new(AtomicUsize::new(0));
    let (open, gate) = mpsc::channel::<()>();
    let (counted, gate) = (Arc::clone(&batches), Mutex::new(gate));
    let hook = FaultHook(Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let _ = gate.lock().unwrap().recv();
    }));
    let config = EncoderConfig { fault: Some(hook), queue_depth: 1, ..folder.config() };
    let encoder = Encoder::start(config).unwrap();
    let cat = || job(vec![EncodeInput::Text("cat".to_owned())], false);
    let (first, first_reply) = cat();
    encoder.submit(first).unwrap();
    while batches.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    // The thread is inside the first batch: one place is free, and taken by a job that is given up.
    let (second, second_reply) = cat();
    encoder.submit(EncodeJob { cancelled: Box::new(|| true), ..second }).unwrap();
    assert_eq!(encoder.submit(cat().0), Err(SubmitError::QueueFull));
    drop(open);
    assert!(first_reply.recv().unwrap().is_ok());
    assert!(second_reply.recv().is_err(), "no reply, the job was dropped");
    assert_eq!(batches.load(Ordering::Relaxed), 1);
}

#[test]
fn a_folder_that_is_damaged_or_not_supported_is_refused() {
    let cases: [(&str, Vec<u8>); 7] = [
        ("config.json", b"{}".to_vec()),
        ("config.json", CONFIG.replace("\"gelu\"", "\"relu\"").into_bytes()),
        (
            "config.json",
            CONFIG.replace("\"num_attention_heads\":4", "\"num_attention_heads\":5").into_bytes(),
        ),
        ("config.json", CONFIG.replace("\"num_hidden_layers\":2", "\"num_hidden_layers\":1").into_bytes()),
        ("config.json", CONFIG.replace("\"vocab_size\":10", "\"vocab_size\":9").into_bytes()),
        ("tokenizer.json", b"{}".to_vec()),
        ("model.safetensors", b"nothing".to_vec()),
    ];
    for (name, bytes) in cases {
        let folder = Folder::new();
        folder.put(name, &bytes);
        let error = Encoder::start(folder.config()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{name}: {error}");
    }
    let missing = Encoder::start(EncoderConfig::new(Path::new("/nowhere"))).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::ModelUnavailable);
}
