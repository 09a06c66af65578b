//! Is a GPU worth it, and right? Holds a model on a device against the CPU kernels, and measures it.
//!
//! Prints rows of a Markdown table, whose head `scripts/gpu-check` prints; what else there is to say goes to standard
//! error. Ends with 1 when the device computes something else than the CPU. On the device `cpu`, stock tensor
//! operations are checked: the code that runs on a GPU.
//!
//! Arguments: a device (`cpu`, `cuda:N`), a folder for compiled kernels, then models: GGUF files, `1b` or `small` for
//! random weights, each optionally with `=` and a precision, such as `1b=q8`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program that prints figures"
)]

mod agree;
mod measure;

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use opossum_inference::testing::RandomLlama;
use opossum_inference::{DeviceChoice, LoadOptions, LoadedModel, Precision, device};

/// Sequences computed together.
const BATCHES: [usize; 3] = [1, 8, 32];

/// Tokens of each sequence, prompt and answer.
pub(crate) const CONTEXT: usize = measure::PROMPT + 2 * measure::STEPS;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let choice = arguments.next().map_or(DeviceChoice::Cpu, |name| device_of(&name));
    let kernels = arguments.next().unwrap_or_else(|| panic!("which folder for kernels?"));
    device::keep_kernels_in(Path::new(&kernels));
    let mut right = true;
    for model in arguments {
        right &= check(choice, &model, Path::new(&kernels));
    }
    std::process::exit(i32::from(!right));
}

fn device_of(name: &str) -> DeviceChoice {
    match name.strip_prefix("cuda:") {
        Some(index) => DeviceChoice::Cuda(index.parse().unwrap()),
        None => DeviceChoice::Cpu,
    }
}

fn tensors_on(choice: DeviceChoice) -> Device {
    match choice {
        #[cfg(feature = "cuda")]
        DeviceChoice::Cuda(index) => Device::cuda(index),
        _ => Device::flex(),
    }
}

fn precision_of(name: &str) -> Precision {
    match name {
        "auto" => Precision::Auto,
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        "f16" => Precision::F16,
        "q8" => Precision::Q8,
        "q4" => Precision::Q4,
        other => panic!("{other} is no precision"),
    }
}

/// Checks and measures one model; `false` when it computes something else than the CPU.
fn check(choice: DeviceChoice, model: &str, folder: &Path) -> bool {
    let (model, precision) = model.split_once('=').unwrap_or((model, "auto"));
    let path = file_of(model, folder);
    let options = LoadOptions { max_context: CONTEXT, max_sequences: 32, ..LoadOptions::new(&path) };
    let began = Instant::now();
    let on_device = LoadOptions {
        device: choice,
        precision: precision_of(precision),
        reference: true,
        ..options.clone()
    };
    let loaded = LoadedModel::load(&on_device).unwrap_or_else(|error| panic!("{model}: {error}"));
    let info = loaded.info();
    eprintln!("{model}: loaded as {} in {:.1} s", info.quantization, began.elapsed().as_secs_f64());
    let agreement = {
        let cpu = LoadedModel::load(&options).unwrap_or_else(|error| panic!("{model}: {error}"));
        agree::compare(&loaded, &cpu)
    };
    eprintln!("{model}: {agreement}");
    let bandwidth = measure::bandwidth(&tensors_on(choice));
    for batch in BATCHES {
        let speed = measure::speed(&loaded, batch);
        let gigabytes = measure::bytes_per_step(&loaded, batch) / speed.step / 1e9;
        println!(
            "| opossum, {} | {} | {} | {batch} | {:.0} | {:.1} | {gigabytes:.1} | {:.0} % | {agreement} |",
            info.device,
            info.name,
            info.quantization,
            speed.prefill,
            speed.decode,
            100.0 * gigabytes * 1e9 / bandwidth,
        );
    }
    eprintln!("{model}: memory reads and writes of the device reach {:.1} GB/s", bandwidth / 1e9);
    if let Some(usage) = tensors_on(choice).memory_pool_usage() {
        eprintln!(
            "{model}: {} MB of the device in use, {} reserved",
            usage.bytes_in_use >> 20,
            usage.bytes_reserved >> 20
        );
    }
    agreement.is_good()
}

/// The file of a model; one with random weights is written if it is not there yet.
fn file_of(model: &str, folder: &Path) -> PathBuf {
    let shape = match model {
        "1b" => RandomLlama::ONE_BILLION,
        "small" => RandomLlama::SMALL,
        path => return path.into(),
    };
    let path = folder.join(format!("{}.gguf", shape.name));
    if !path.exists() {
        eprintln!("writing {}", path.display());
        std::fs::create_dir_all(folder).unwrap();
        shape.write(&path).unwrap();
    }
    path
}
