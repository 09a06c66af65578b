//! Which hardware runs the tensors.
//!
//! The choice is made when the engine starts, not when it is compiled: one binary serves machines with and without a
//! GPU. A GPU is only used after it was seen in the device list, because opening an absent one panics inside the
//! driver bindings.

use burn::tensor::Device;

use crate::InferenceError;

/// Where the model is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first CUDA device when this build has CUDA and the machine has one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this index; an error when there is none.
    Cuda(usize),
}

impl DeviceChoice {
    /// Finds the device.
    ///
    /// # Errors
    /// [`InferenceError::ModelUnavailable`] for [`DeviceChoice::Cuda`] without such a device or without the cargo
    /// feature `cuda`.
    pub(crate) fn resolve(self) -> Result<(Device, String), InferenceError> {
        match self {
            Self::Cpu => Ok(cpu()),
            Self::Auto => Ok(cuda(0).unwrap_or_else(cpu)),
            Self::Cuda(index) => cuda(index).ok_or_else(|| {
                InferenceError::unavailable(format!("there is no CUDA device {index} to use"))
            }),
        }
    }
}

fn cpu() -> (Device, String) {
    (Device::flex(), "cpu".to_owned())
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Option<(Device, String)> {
    let seen = Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec();
    (index < seen.len()).then(|| (Device::cuda(index), format!("cuda:{index}")))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Option<(Device, String)> {
    None
}
