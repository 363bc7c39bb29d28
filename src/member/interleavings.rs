//! Members used by several threads, in all interleavings.

mod requests;
mod slots;
mod trials;
mod words;

use super::{
    flags::{REMOVED, UNREACHABLE},
    *,
};

fn member(slot: Option<Slot>) -> Arc<Member> {
    let endpoint = Endpoint::new(([10, 0, 0, 1], 80).into());
    let signals = Signals::new(tokio::time::Instant::now()).reviewed(None);
    Member::new(endpoint, slot, None, Arc::new(signals))
}

impl MemberRef {
    fn flags(&self) -> u32 {
        self.word().load(Relaxed) & !COUNT
    }
}
