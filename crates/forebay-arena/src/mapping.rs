//! The mapped memory itself: creation with seals, opening with checks, raw typed access.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create,
};

use crate::{ArenaError, ArenaLayout};

/// Without these seals the other process could shrink the file, and a load from the missing
/// page would kill this process with SIGBUS.
const SEALS: [(SealFlags, &str); 3] = [
    (SealFlags::GROW, "growing"),
    (SealFlags::SHRINK, "shrinking"),
    (SealFlags::SEAL, "further seals"),
];

/// One shared mapping. It hands out raw pointers only: references over memory that another
/// process may write are made by the callers, who know who owns which part.
pub(crate) struct Mapping {
    memory: MmapRaw,
    file: File,
}

impl Mapping {
    pub(crate) fn create(layout: &ArenaLayout) -> Result<Self, ArenaError> {
        let bytes = layout.bytes() as u64;
        let os = |what| {
            move |errno: rustix::io::Errno| ArenaError::Os { what, bytes, source: errno.into() }
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("forebay-arena", flags).map_err(os("create"))?;
        ftruncate(&fd, bytes).map_err(os("size"))?;
        let seals = SEALS.iter().fold(SealFlags::empty(), |all, (seal, _)| all | *seal);
        fcntl_add_seals(&fd, seals).map_err(os("seal"))?;
        Self::map(fd, bytes)
    }

    pub(crate) fn open(fd: OwnedFd, layout: &ArenaLayout) -> Result<Self, ArenaError> {
        let expected = layout.bytes() as u64;
        let os = |what| {
            move |errno: rustix::io::Errno| ArenaError::Os {
                what,
                bytes: expected,
                source: errno.into(),
            }
        };
        let seals = fcntl_get_seals(&fd).map_err(os("read the seals of"))?;
        if let Some((_, missing)) = SEALS.iter().find(|(seal, _)| !seals.contains(*seal)) {
            return Err(ArenaError::Unsealed { missing });
        }
        let found = rustix::fs::fstat(&fd).map_err(os("inspect"))?.st_size;
        let found = u64::try_from(found).unwrap_or(0);
        if found != expected {
            return Err(ArenaError::Size { found, expected });
        }
        Self::map(fd, expected)
    }

    fn map(fd: OwnedFd, bytes: u64) -> Result<Self, ArenaError> {
        let file = File::from(fd);
        let memory = MmapOptions::new().map_raw(&file).map_err(|source| ArenaError::Os {
            what: "map",
            bytes,
            source,
        })?;
        Ok(Self { memory, file })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// First byte of the mapping; page-aligned.
    pub(crate) fn base(&self) -> *mut u8 {
        self.memory.as_mut_ptr()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.memory.len()
    }
}
