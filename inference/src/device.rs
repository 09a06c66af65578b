//! Which hardware runs the tensors.
//!
//! The choice is made when the engine starts, not when it is compiled: one binary serves machines with and without a
//! GPU. A GPU is only used after it was seen in the device list, because opening an absent one panics inside the
//! driver bindings.

use std::path::Path;

use burn::tensor::Device;

use crate::InferenceError;

/// Where the model is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first CUDA device when this build has CUDA and the machine has one that works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this index; an error when there is none.
    Cuda(usize),
}

/// A device that is there.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) device: Device,
    /// `cpu` or `cuda:N`.
    pub(crate) name: String,
    /// Bytes of memory the device has of its own; `None` where it shares the machine's.
    pub(crate) memory: Option<u64>,
}

impl DeviceChoice {
    /// Refuses a device that this build cannot use on any machine.
    ///
    /// # Errors
    /// [`InferenceError::ModelUnavailable`] for [`DeviceChoice::Cuda`] without the cargo feature `cuda`.
    pub fn check_build(self) -> Result<(), InferenceError> {
        match self {
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(InferenceError::unavailable(NO_CUDA)),
            Self::Auto | Self::Cpu | Self::Cuda(_) => Ok(()),
        }
    }

    /// Finds the device.
    ///
    /// # Errors
    /// [`InferenceError::ModelUnavailable`] for [`DeviceChoice::Cuda`] without such a device or without the cargo
    /// feature `cuda`.
    pub(crate) fn find(self) -> Result<Found, InferenceError> {
        match self {
            Self::Cpu => Ok(cpu()),
            Self::Auto => Ok(cuda(0).unwrap_or_else(|reason| {
                // A build without CUDA has nothing to explain.
                if cfg!(feature = "cuda") {
                    tracing::info!(%reason, "the model runs on the CPU");
                }
                cpu()
            })),
            Self::Cuda(index) => cuda(index).map_err(InferenceError::unavailable),
        }
    }
}

/// Keeps in a folder what the kernels of a GPU were compiled and tuned to, so that the next process need not do it
/// again. To be called before anything else here: the first device that is found fixes the settings of the process.
/// A build without CUDA keeps nothing.
#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "there are no kernels to keep"))]
pub fn keep_kernels_in(folder: &Path) {
    #[cfg(feature = "cuda")]
    with_cuda::keep_kernels_in(folder);
}

const NO_CUDA: &str = "this build has no CUDA; one with the cargo feature cuda has (make cuda)";

fn cpu() -> Found {
    Found { device: Device::flex(), name: "cpu".to_owned(), memory: None }
}

#[cfg(feature = "cuda")]
use with_cuda::cuda;

/// The device, or why it cannot be used.
#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Result<Found, String> {
    Err(NO_CUDA.to_owned())
}

#[cfg(feature = "cuda")]
mod with_cuda {
    use std::path::{Path, PathBuf};

    use burn::cubecl::config::cache::CacheConfig;
    use burn::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    use burn::tensor::{Device, DeviceType};

    use super::Found;
    use crate::engine::worker::guarded;

    /// Where a folder of CUDA has functions such as `exp` for kernels.
    const LIBRARIES: &str = "nvvm/libdevice";
    /// The folders of CUDA that the kernel compiler tries when `CUDA_PATH` does not say.
    const ROOTS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];

    /// As the function of this name in a build without CUDA.
    pub(super) fn cuda(index: usize) -> Result<Found, String> {
        let seen = Device::enumerate(DeviceType::Cuda).into_vec().len();
        if seen == 0 {
            return Err("there is no CUDA device, or no driver for it".to_owned());
        }
        if index >= seen {
            return Err(format!("there is no CUDA device {index}, only {seen} numbered from 0"));
        }
        find_libdevice()?;
        // What is in the list may still fail to open, with a panic.
        let memory = guarded(|| memory(index))
            .and_then(|memory| memory)
            .map_err(|reason| format!("the CUDA device {index} cannot be opened: {reason}"))?;
        Ok(Found { device: Device::cuda(index), name: format!("cuda:{index}"), memory })
    }

    /// Opens the device.
    fn memory(index: usize) -> Result<Option<u64>, String> {
        let device = burn::cubecl::Device::cuda(index).map_err(|error| error.to_string())?;
        Ok(device.client().properties().memory.max_memory())
    }

    pub(super) fn keep_kernels_in(folder: &Path) {
        let mut config = CubeClRuntimeConfig::default().override_from_env();
        config.environment.path = CacheConfig::Directory(folder.to_owned());
        config.compilation.cache = true;
        if !CubeClRuntimeConfig::try_set(config) {
            tracing::debug!("the settings of the GPU's compiler were fixed before");
        }
    }

    /// Without it, the first kernel that needs it fails in the middle of an answer.
    fn find_libdevice() -> Result<(), String> {
        let set = std::env::var_os("CUDA_PATH").map(PathBuf::from);
        let installed = || ROOTS.iter().map(PathBuf::from).find(|root| root.join(LIBRARIES).is_dir());
        let root = set.or_else(installed).unwrap_or_else(|| PathBuf::from(ROOTS[0]));
        let file = root.join(LIBRARIES).join("libdevice.10.bc");
        match file.is_file() {
            true => Ok(()),
            false => Err(format!("{} is not there; CUDA_PATH names the folder of CUDA", file.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_cpu_is_always_there() {
        let found = DeviceChoice::Cpu.find().unwrap();
        assert_eq!((found.name.as_str(), found.memory), ("cpu", None));
        assert_eq!(DeviceChoice::Auto.check_build(), Ok(()));
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_build_without_cuda_says_so() {
        let refused = DeviceChoice::Cuda(0).check_build().unwrap_err().to_string();
        assert!(refused.contains("make cuda"), "{refused}");
        assert_eq!(DeviceChoice::Cuda(0).find().unwrap_err().to_string(), refused);
        assert_eq!(DeviceChoice::Auto.find().unwrap().name, "cpu");
    }
}
