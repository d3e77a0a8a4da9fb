//! Faults on demand. `CRAB_PLANT=handler:3` panics in the handler at its third request, once in the life of a process.
//!
//! Without the feature `plant`, which only tests turn on, there is nothing here that could panic.

/// Panics if the environment asks for it at `place` and this is the call that it names.
#[cfg(feature = "plant")]
#[expect(clippy::panic, reason = "this is the planted fault itself")]
pub(crate) fn panic_here(place: &'static str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let wish = std::env::var("CRAB_PLANT").unwrap_or_default();
    let Some((at, count)) = wish.split_once(':') else { return };
    if at == place && Ok(CALLS.fetch_add(1, Ordering::Relaxed) + 1) == count.parse::<u32>() {
        panic!("planted in {place}");
    }
}

/// Nothing.
#[cfg(not(feature = "plant"))]
pub(crate) fn panic_here(_place: &'static str) {}
