//! How fast the model is here and now. It asserts nothing about speed, which depends on the machine.

use std::time::Instant;

use crate::support;
use opossum_inference::{LoadOptions, LoadedModel};

#[test]
#[ignore = "measures, proves nothing: run it by name, alone"]
fn load_prefill_and_decode() {
    let Some(path) = support::model_path() else { return };
    let begin = Instant::now();
    let model = LoadedModel::load(&LoadOptions::new(path)).unwrap();
    let load = begin.elapsed();
    let prompt: Vec<u32> = (0..128).map(|at| 100 + at * 37 % 4000).collect();
    for round in 0..3 {
        let mut cache = model.new_session().unwrap();
        let begin = Instant::now();
        let mut logits = model.step(&prompt, &mut cache).unwrap();
        let prefill = begin.elapsed();
        let begin = Instant::now();
        for _ in 0..64 {
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            logits = model.step(&[best as u32], &mut cache).unwrap();
        }
        let decode = begin.elapsed() / 64;
        eprintln!(
            "round {round}: load {load:.2?}, prefill of 128 {prefill:.1?}, decode {decode:.2?} a token"
        );
        assert_eq!(cache.len(), 192);
    }
}
