//! The allocator's settings: keep big buffers instead of handing them back to the system after each operation.
//!
//! Each tensor operation allocates its output. glibc maps a buffer beyond a threshold anew every time and unmaps it when it is
//! freed, so that every page of it is zeroed and faulted in again: measured, up to four fifths of an element-wise operation's time.

/// Raises glibc's thresholds; does nothing with another C library.
pub fn keep_big_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const GIBIBYTE: libc::c_int = 1 << 30;
        // SAFETY: mallopt changes settings of the allocator alone; it is called before any other thread is there.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, GIBIBYTE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        }
    }
}
