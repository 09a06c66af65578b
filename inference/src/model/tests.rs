#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::weights::rotate_half_order;
use super::*;
use crate::gguf::TensorType;
use crate::testing::{TempModel, TinyLlama};
use crate::{ErrorKind, Precision, PromptMessage};

fn load(model: &TempModel) -> LoadedModel {
    LoadedModel::load(&LoadOptions::new(model.path())).unwrap()
}

const TOKENS: [u32; 9] = [1, 60, 70, 80, 90, 100, 110, 120, 130];

#[test]
fn a_file_says_what_it_is() {
    let model = load(&TempModel::new(&TinyLlama::default()));
    let info = model.info();
    assert_eq!((info.name.as_str(), info.architecture.as_str()), ("tiny", "llama"));
    assert_eq!((info.context_length, info.vocab), (512, model.tokenizer().vocab()));
    assert_eq!((info.quantization.as_str(), info.device.as_str()), ("F32", "cpu"));
    assert_eq!(info.license.as_deref(), Some("apache-2.0"));
}

#[test]
fn steps_over_a_cache_give_what_the_whole_gives_at_once() {
    let model = load(&TempModel::new(&TinyLlama::default()));
    let vocab = model.info().vocab;
    let whole = model.logits(&TOKENS).unwrap();
    assert_eq!(whole.len(), TOKENS.len() * vocab);
    for cut in [1, 4, 8] {
        let mut cache = model.new_session().unwrap();
        model.step(&TOKENS[..cut], &mut cache).unwrap();
        for (at, token) in TOKENS.iter().enumerate().skip(cut) {
            let logits = model.step(&[*token], &mut cache).unwrap();
            assert_eq!(cache.len(), at + 1);
            for (ours, reference) in logits.iter().zip(&whole[at * vocab..]) {
                assert!((ours - reference).abs() < 1e-4, "position {at}: {ours} is not {reference}");
            }
        }
    }
}

#[test]
fn later_tokens_do_not_change_earlier_logits() {
    let model = load(&TempModel::new(&TinyLlama::default()));
    let vocab = model.info().vocab;
    let mut changed = TOKENS;
    changed[8] = 7;
    let (one, other) = (model.logits(&TOKENS).unwrap(), model.logits(&changed).unwrap());
    assert_eq!(one[..8 * vocab], other[..8 * vocab]);
    assert_ne!(one[8 * vocab..], other[8 * vocab..]);
}

#[test]
fn a_cache_that_grows_keeps_what_it_holds() {
    let model = load(&TempModel::new(&TinyLlama::default()));
    let vocab = model.info().vocab;
    let tokens: Vec<u32> = (0..400).map(|at| 10 + at * 7 % 200).collect();
    let whole = model.logits(&tokens).unwrap();
    let mut cache = model.new_session().unwrap();
    let last = tokens.chunks(100).map(|chunk| model.step(chunk, &mut cache).unwrap()).last().unwrap();
    for (ours, reference) in last.iter().zip(&whole[399 * vocab..]) {
        assert!((ours - reference).abs() < 1e-4);
    }
}

/// Computes these sequences to their ends in one cache, in passes that take `chunk` tokens of each in turn; answers every
/// sequence's logits of every token.
fn together(model: &LoadedModel, sequences: &[&[u32]], chunks: &[usize]) -> Vec<Vec<f32>> {
    // Blocks are dealt out alternately, so that no sequence lies in one piece.
    let count = sequences.len();
    let blocks = |index: usize| (0..4).map(|block| (block * count + index) as u32).collect::<Vec<_>>();
    let tables: Vec<Vec<u32>> = (0..count).map(blocks).collect();
    let mut cache = model.new_cache(4 * count).unwrap();
    let (mut done, mut all) = (vec![0; count], vec![Vec::new(); count]);
    while done.iter().zip(sequences).any(|(&done, sequence)| done < sequence.len()) {
        let running: Vec<usize> = (0..count).filter(|&at| done[at] < sequences[at].len()).collect();
        let ends: Vec<usize> =
            running.iter().map(|&at| (done[at] + chunks[at]).min(sequences[at].len())).collect();
        let entry = |(&at, &end): (&usize, &usize)| BatchEntry {
            tokens: &sequences[at][done[at]..end],
            past: done[at],
            blocks: &tables[at],
            rows: Rows::All,
        };
        let batch: Vec<BatchEntry<'_>> = running.iter().zip(&ends).map(entry).collect();
        let mut logits = model.forward(&batch, &mut cache).unwrap();
        let mut rows = logits.rows();
        for (at, end) in running.into_iter().zip(ends) {
            all[at].extend(rows.by_ref().take(end - done[at]).flatten().map(|logit| *logit));
            done[at] = end;
        }
    }
    all
}

fn assert_close(ours: &[f32], reference: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), reference.len());
    let widest = ours.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(widest < tolerance, "a logit differs by {widest}");
}

#[test]
fn sequences_of_one_batch_do_not_see_each_other() {
    let long: Vec<u32> = (0..70).map(|at| 10 + at * 7 % 200).collect();
    for reference in [true, false] {
        let file = TempModel::new(&TinyLlama::default());
        let model = LoadedModel::load(&LoadOptions { reference, ..LoadOptions::new(file.path()) }).unwrap();
        let sequences: [&[u32]; 4] = [&TOKENS, &long, &long[5..40], &TOKENS[3..]];
        // Prompts in chunks beside single tokens, as an engine mixes them.
        for (ours, tokens) in together(&model, &sequences, &[1, 33, 16, 1]).iter().zip(sequences) {
            assert_close(ours, &model.logits(tokens).unwrap(), 1e-3);
        }
    }
}

#[test]
fn the_kernels_compute_what_stock_tensor_operations_compute() {
    let tokens: Vec<u32> = (0..150).map(|at| 10 + at * 7 % 200).collect();
    // Activations become 8-bit numbers where weights are quantized, and the cache is in half precision.
    for (kind, tolerance) in [(TensorType::F32, 0.02), (TensorType::F16, 0.02), (TensorType::Q8_0, 0.05)] {
        let file = TempModel::new(&TinyLlama { kind, ..TinyLlama::default() });
        let logits = |reference| {
            let options = LoadOptions { reference, ..LoadOptions::new(file.path()) };
            LoadedModel::load(&options).unwrap().logits(&tokens).unwrap()
        };
        let exact = logits(true);
        let scale = exact.iter().fold(0.0_f32, |widest, logit| widest.max(logit.abs()));
        assert_close(&logits(false), &exact, tolerance * scale);
    }
}

#[test]
fn weights_are_as_wide_as_asked_on_the_kernels_and_on_tensors() {
    let tokens: Vec<u32> = (0..70).map(|at| 10 + at * 7 % 200).collect();
    let file = TempModel::new(&TinyLlama::default());
    let logits = |precision, reference| {
        let options = LoadOptions { precision, reference, ..LoadOptions::new(file.path()) };
        let model = LoadedModel::load(&options).unwrap();
        (model.info().quantization.clone(), model.logits(&tokens).unwrap())
    };
    let (name, exact) = logits(Precision::F32, true);
    assert_eq!(name, "F32");
    let scale = exact.iter().fold(0.0_f32, |widest, logit| widest.max(logit.abs()));
    for (precision, name, tolerance) in [
        (Precision::F32, "F32", 0.02),
        (Precision::Bf16, "BF16", 0.1),
        (Precision::F16, "F16", 0.02),
        (Precision::Q8, "Q8_0", 0.1),
        (Precision::Q4, "Q4_0", 0.8),
    ] {
        for reference in [false, true] {
            let (found, ours) = logits(precision, reference);
            assert_eq!(found, name);
            assert_close(&ours, &exact, tolerance * scale);
        }
    }
}

#[test]
fn without_quantized_weights_a_quantized_file_becomes_floats_of_the_same_numbers() {
    let file = TempModel::new(&TinyLlama { kind: TensorType::Q8_0, ..TinyLlama::default() });
    let load = |quantized, reference| {
        let options = LoadOptions { quantized, reference, ..LoadOptions::new(file.path()) };
        LoadedModel::load(&options).unwrap()
    };
    let (model, stored) = (load(false, false), load(true, false));
    assert_eq!((model.info().quantization.as_str(), stored.info().quantization.as_str()), ("F32", "Q8_0"));
    let exact = load(true, true).logits(&TOKENS).unwrap();
    let scale = exact.iter().fold(0.0_f32, |widest, logit| widest.max(logit.abs()));
    // Activations stay floats where weights are: what is left is the cache in half precision.
    assert_close(&model.logits(&TOKENS).unwrap(), &exact, 0.002 * scale);
}

#[test]
fn only_the_rows_that_are_wanted_are_answered() {
    let model = load(&TempModel::new(&TinyLlama::default()));
    let mut cache = model.new_cache(4).unwrap();
    let entry = |rows, block| BatchEntry { tokens: &TOKENS, past: 0, blocks: block, rows };
    let batch = [entry(Rows::Last, &[3]), entry(Rows::None, &[0]), entry(Rows::All, &[1])];
    let mut logits = model.forward(&batch, &mut cache).unwrap();
    assert_eq!(logits.len(), 1 + TOKENS.len());
    let last = logits.row(0).to_vec();
    assert_close(logits.row(TOKENS.len()), &last, 1e-4);
    assert!(model.forward(&batch[1..2], &mut cache).unwrap().is_empty());
    assert!(model.forward(&[], &mut cache).unwrap().is_empty());
}

#[test]
fn entries_that_do_not_fit_their_cache_are_refused() {
    let model = load(&TempModel::new(&TinyLlama::default()));
    let mut cache = model.new_cache(2).unwrap();
    let mut refused = |tokens: &[u32], past, blocks: &[u32]| {
        let entry = BatchEntry { tokens, past, blocks, rows: Rows::Last };
        model.forward(&[entry], &mut cache).map(|_| ()).map_err(|error| error.kind())
    };
    assert_eq!(refused(&[], 0, &[0]), Err(ErrorKind::BadParameter));
    assert_eq!(refused(&[5], 32, &[0]), Err(ErrorKind::BadParameter));
    assert_eq!(refused(&[5], 0, &[2]), Err(ErrorKind::BadParameter));
    assert_eq!(refused(&[5], usize::MAX, &[0]), Err(ErrorKind::ContextLengthExceeded));
    assert_eq!(refused(&[5], 32, &[0, 1]), Ok(()));
}

#[test]
fn quantized_weights_stay_close_to_the_originals() {
    let logits = |kind| {
        let tiny = TinyLlama { kind, ..TinyLlama::default() };
        load(&TempModel::new(&tiny)).logits(&TOKENS).unwrap()
    };
    let exact = logits(TensorType::F32);
    let spread = |kind| {
        let squares: f32 = logits(kind).iter().zip(&exact).map(|(a, b)| (a - b) * (a - b)).sum();
        (squares / exact.len() as f32).sqrt()
    };
    let scale = (exact.iter().map(|x| x * x).sum::<f32>() / exact.len() as f32).sqrt();
    assert!(spread(TensorType::F16) < 0.01 * scale);
    assert!(spread(TensorType::Q8_0) < 0.05 * scale);
    assert!(spread(TensorType::Q4_0) < 0.8 * scale);
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_computed() {
    let path = TempModel::new(&TinyLlama::default());
    let options = LoadOptions { max_context: 20, ..LoadOptions::new(path.path()) };
    let model = LoadedModel::load(&options).unwrap();
    let kind = |prompt: &Prompt| model.encode(prompt, 1).map_err(|error| error.kind());
    assert_eq!(kind(&Prompt::Raw("x".repeat(19))).unwrap().len(), 19);
    assert_eq!(kind(&Prompt::Raw("x".repeat(20))), Err(ErrorKind::ContextLengthExceeded));
    assert_eq!(kind(&Prompt::Raw("x".repeat(10_000_000))), Err(ErrorKind::ContextLengthExceeded));
    assert_eq!(kind(&Prompt::Raw(String::new())), Err(ErrorKind::BadParameter));
    let rejected = Prompt::Chat {
        messages: vec![PromptMessage::new("assistant", "")],
        tools: Vec::new(),
        add_generation_prompt: true,
    };
    assert_eq!(kind(&rejected), Err(ErrorKind::TemplateFailed));
    let mut cache = model.new_session().unwrap();
    let step = |tokens: &[u32], cache: &mut Session| model.step(tokens, cache).map_err(|error| error.kind());
    assert_eq!(step(&[1; 21], &mut cache), Err(ErrorKind::ContextLengthExceeded));
    assert_eq!(step(&[9999], &mut cache), Err(ErrorKind::BadParameter));
    assert!(cache.is_empty());
}

#[test]
fn another_digest_is_refused_and_the_right_one_is_not() {
    let path = TempModel::new(&TinyLlama::default());
    let digest = crate::gguf::GgufFile::open(path.path()).unwrap().sha256().unwrap();
    let load = |sha256: String| {
        let options = LoadOptions { sha256: Some(sha256), ..LoadOptions::new(path.path()) };
        LoadedModel::load(&options).map(|_| ()).map_err(|error| error.kind())
    };
    assert_eq!(load(digest.to_uppercase()), Ok(()));
    assert_eq!(load("0".repeat(64)), Err(ErrorKind::ModelInvalid));
}

#[test]
fn query_and_key_rows_are_put_back() {
    // Two heads of four rows: the file interleaves the halves of each head.
    let stored = [0, 2, 1, 3, 10, 12, 11, 13];
    let order = rotate_half_order(8, 4);
    assert_eq!(order.iter().map(|&row| stored[row]).collect::<Vec<_>>(), [0, 1, 2, 3, 10, 11, 12, 13]);
}

#[test]
fn a_model_that_needs_more_than_there_is_is_unavailable() {
    let path = TempModel::new(&TinyLlama::default());
    let options = LoadOptions { max_sequences: usize::MAX, ..LoadOptions::new(path.path()) };
    let refused = LoadedModel::load(&options).map(|_| ()).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::ModelUnavailable));
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_gpu_that_is_not_there_is_unavailable() {
    use crate::DeviceChoice;
    let path = TempModel::new(&TinyLlama::default());
    let load = |device| {
        let options = LoadOptions { device, ..LoadOptions::new(path.path()) };
        LoadedModel::load(&options).map(|model| model.info().device.clone()).map_err(|error| error.kind())
    };
    assert_eq!(load(DeviceChoice::Cuda(0)), Err(ErrorKind::ModelUnavailable));
    assert_eq!(load(DeviceChoice::Auto), Ok("cpu".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_damaged_file_is_refused_or_computes(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
        in_metadata: bool,
    ) {
        let mut bytes = TinyLlama::default().to_bytes().unwrap();
        // The first kilobyte holds the sizes; damage there is the most telling.
        let reach = if in_metadata { 1024 } else { bytes.len() };
        for (at, bit) in flips {
            bytes[at.index(reach)] ^= 1 << bit;
        }
        let path = TempModel::from_bytes(&bytes);
        if let Ok(model) = LoadedModel::load(&LoadOptions::new(path.path())) {
            let logits = model.step(&[5, 6], &mut model.new_session().unwrap());
            prop_assert!(logits.is_err() || logits.unwrap().len() == model.info().vocab);
        }
    }
}
