#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::testing::{numbers, pools};

const SHAPE: KvShape = KvShape { layers: 2, kv_heads: 3, dim: 20, blocks: 5 };

/// The key and the value of one head of one position.
fn stored(
    store: &KvStore,
    layer: usize,
    blocks: &[u32],
    position: usize,
    head: usize,
) -> (Vec<f32>, Vec<f32>) {
    let (keys, values) = store.head(layer, blocks[position / BLOCK_TOKENS], head);
    let slot = position % BLOCK_TOKENS;
    let dim = store.shape().dim;
    let key = (0..dim).map(|d| keys[d * BLOCK_TOKENS + slot].to_f32()).collect();
    let value = values[slot * store.value_stride()..][..dim].iter().map(|v| v.to_f32()).collect();
    (key, value)
}

fn halved(from: &[f32]) -> Vec<f32> {
    from.iter().map(|x| f16::from_f32(*x).to_f32()).collect()
}

#[test]
fn what_is_appended_is_read_back_in_half_precision() {
    for pool in pools() {
        let mut store = KvStore::new(SHAPE).unwrap();
        let blocks = [4, 0, 2];
        let width = SHAPE.kv_heads * SHAPE.dim;
        let (keys, values) = (numbers(70 * width, 1), numbers(70 * width, 2));
        let mut past = 0;
        for tokens in [1, 30, 38, 1] {
            let range = past * width..(past + tokens) * width;
            store.append(&pool, 1, &blocks, past, &keys[range.clone()], &values[range]);
            past += tokens;
        }
        for position in 0..70 {
            for head in 0..SHAPE.kv_heads {
                let at = (position * SHAPE.kv_heads + head) * SHAPE.dim;
                let want = (halved(&keys[at..][..SHAPE.dim]), halved(&values[at..][..SHAPE.dim]));
                assert_eq!(stored(&store, 1, &blocks, position, head), want);
                assert_eq!(stored(&store, 0, &blocks, position, head).0, vec![0.0; SHAPE.dim]);
            }
        }
    }
}

#[test]
fn a_copied_block_has_all_layers_of_its_source_and_others_stay() {
    let pool = Pool::new(1);
    let mut store = KvStore::new(SHAPE).unwrap();
    let width = SHAPE.kv_heads * SHAPE.dim;
    let ones = vec![1.0; width];
    for layer in 0..SHAPE.layers {
        store.append(&pool, layer, &[3], 0, &ones, &ones);
    }
    store.copy_block(3, 1);
    for layer in 0..SHAPE.layers {
        assert_eq!(stored(&store, layer, &[1], 0, 2).1, vec![1.0; SHAPE.dim]);
        assert_eq!(stored(&store, layer, &[2], 0, 2).1, vec![0.0; SHAPE.dim]);
    }
}

#[test]
fn a_shape_without_sense_is_refused() {
    for shape in [
        KvShape { layers: 0, ..SHAPE },
        KvShape { kv_heads: 0, ..SHAPE },
        KvShape { dim: 0, ..SHAPE },
        KvShape { dim: usize::MAX, ..SHAPE },
        KvShape { blocks: usize::MAX / 2, ..SHAPE },
    ] {
        assert_eq!(KvStore::new(shape).err(), Some(KvError::Shape(shape)));
    }
}

#[test]
fn more_memory_than_there_is_is_an_error() {
    let shape = KvShape { blocks: usize::MAX / SHAPE.bytes_per_block().unwrap() / 2, ..SHAPE };
    assert!(matches!(KvStore::new(shape), Err(KvError::Memory { .. })));
}

#[test]
fn a_large_store_takes_no_memory_before_it_is_written() {
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    let blocks = (512 << 20) / SHAPE.bytes_per_block().unwrap();
    let store = KvStore::new(KvShape { blocks, ..SHAPE }).unwrap();
    assert!(resident() < before + (128 << 20));
    assert_eq!(store.head(0, 0, 0).0[0], f16::ZERO);
}

#[test]
#[should_panic(expected = "a block of the store")]
fn a_block_that_is_not_there_is_never_written() {
    let ones = vec![1.0; SHAPE.kv_heads * SHAPE.dim];
    KvStore::new(SHAPE).unwrap().append(&Pool::new(1), 0, &[5], 0, &ones, &ones);
}
