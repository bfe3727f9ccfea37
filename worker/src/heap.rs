//! What the allocator of the C library keeps of memory that was freed, where memory is limited.
//!
//! Left to itself it makes an arena for each of the first threads, up to eight per core, gives back the free end of each alone, and from the first large
//! buffer on takes buffers up to that length out of arenas as well: what came and went on ten threads stays with the process ten times. With a limit
//! there are few arenas, and every large buffer is a mapping of its own, which goes when it is freed.

/// A buffer of at least this length is a mapping of its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: i32 = 256 << 10;
/// So much of an arena may be free at its end.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE_BYTES: i32 = 512 << 10;
/// For each arena that threads may have to themselves beside the first.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const PER_ARENA: u64 = 128 << 20;

/// Keeps little, from now on, of what is freed; `memory` is what the process may take. Another C library's allocator stays as it is.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn keep_little(memory: u64) {
    use std::ffi::c_int;
    // Of <malloc.h>.
    const TRIM_THRESHOLD: c_int = -1;
    const MMAP_THRESHOLD: c_int = -3;
    const ARENA_MAX: c_int = -8;
    unsafe extern "C" {
        fn mallopt(option: c_int, value: c_int) -> c_int;
    }
    let arenas = c_int::try_from(1 + memory / PER_ARENA).unwrap_or(c_int::MAX);
    for (option, value) in [(TRIM_THRESHOLD, FREE_BYTES), (MMAP_THRESHOLD, MAPPED_BYTES), (ARENA_MAX, arenas)] {
        // SAFETY: the function takes two numbers, may be called at any time and from any thread, and only changes what the allocator does next. What it
        // answers says whether it knew the option; if not, nothing has changed.
        let _ = unsafe { mallopt(option, value) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_little(_memory: u64) {}
