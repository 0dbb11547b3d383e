//! Where the operands of a matrix product lie, and what cublasLt needs of them.
//!
//! Nothing here calls a library. A wrong alignment would otherwise be a fault or a wrong result:
//! algorithms are chosen for the alignment that is promised.

use super::memory::DevicePtr;
use crate::error::CudaError;
use crate::gemm::GemmShape;

/// Alignment that every operand must have and that the algorithms are chosen for.
pub(crate) const OPERAND_ALIGNMENT: u64 = 16;

/// The operands of one product on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands {
    pub(crate) a: DevicePtr,
    pub(crate) w: DevicePtr,
    pub(crate) bias: Option<DevicePtr>,
    pub(crate) d: DevicePtr,
    pub(crate) workspace: DevicePtr,
    pub(crate) workspace_bytes: usize,
}

impl Operands {
    /// Refuses what would fault or be silently wrong.
    pub(crate) fn validate(&self, shape: GemmShape) -> Result<(), CudaError> {
        if self.bias.is_some() != shape.bias {
            return Err(CudaError::usage(
                "cublasLtMatmul",
                format!("{shape}: a bias was {}given", if shape.bias { "not " } else { "" }),
            ));
        }
        for (name, pointer) in [
            ("a", self.a),
            ("w", self.w),
            ("d", self.d),
            ("bias", self.bias.unwrap_or(self.d)),
            ("workspace", self.workspace),
        ] {
            let absent = pointer.addr() == 0 && !(name == "workspace" && self.workspace_bytes == 0);
            if absent || !pointer.addr().is_multiple_of(OPERAND_ALIGNMENT) {
                return Err(CudaError::usage(
                    "cublasLtMatmul",
                    format!("{shape}: {name} at {pointer:?} is no multiple of 16 bytes"),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, ErrorKind};

    fn at(address: u64) -> DevicePtr {
        DevicePtr::new(address)
    }

    #[test]
    fn operands_that_would_fault_or_be_ignored_are_refused() {
        let plain = GemmShape { m_bucket: 16, n: 384, k: 384, dtype: Dtype::F16, bias: false };
        let biased = GemmShape { bias: true, ..plain };
        let good = Operands {
            a: at(16),
            w: at(32),
            bias: None,
            d: at(4096),
            workspace: at(256),
            workspace_bytes: 1024,
        };
        assert!(good.validate(plain).is_ok());
        assert!(Operands { bias: Some(at(48)), ..good }.validate(biased).is_ok());
        let no_workspace = Operands { workspace: DevicePtr::NULL, workspace_bytes: 0, ..good };
        assert!(no_workspace.validate(plain).is_ok());
        let bad = [
            (good, biased),
            (Operands { bias: Some(at(48)), ..good }, plain),
            (Operands { bias: Some(at(50)), ..good }, biased),
            (Operands { a: at(24), ..good }, plain),
            (Operands { w: DevicePtr::NULL, ..good }, plain),
            (Operands { d: at(4098), ..good }, plain),
            (Operands { workspace: DevicePtr::NULL, ..good }, plain),
        ];
        for (operands, shape) in bad {
            let error = operands.validate(shape).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Usage, "{operands:?}");
            assert!(error.detail.contains("16 x 384 x 384 f16"), "{error}");
        }
    }
}
