//! The heap of the C library, made to stay small under many short threads.

/// Has all threads share one heap, and large blocks go back to the system as soon as they are freed. To be called before there
/// is a second thread. Programs that are started do not inherit it.
pub fn keep_small() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        const M_MMAP_THRESHOLD: c_int = -3;
        const M_ARENA_MAX: c_int = -8;
        /// Blocks from this size on are mapped one by one. It is the default, which otherwise grows with what is freed.
        const LARGE: c_int = 128 << 10;
        // SAFETY: declared as in malloc.h.
        unsafe extern "C" {
            safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // A C library that refuses takes more memory, and nothing else changes.
        mallopt(M_ARENA_MAX, 1);
        mallopt(M_MMAP_THRESHOLD, LARGE);
    }
}
