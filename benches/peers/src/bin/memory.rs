//! A client in a heap of its own: see `peers::memory`.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

fn main() {
    peers::memory::print_held(|| HEAP.allocated());
}
