//! A heap for a process of which a node has hundreds.
//!
//! General allocators give each size, and each thread, pages of its own. That
//! is quick, and most of what a small process then weighs. Here all small
//! blocks lie side by side in one arena, which is part of the program's zeroed
//! memory: as long as it suffices there is no mapping, and no page table, for
//! the heap at all. What is large is mapped for itself and goes back to the
//! kernel when it is freed.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks begin at multiples of this.
const ALIGNMENT: usize = 16;
/// Larger blocks are mapped for themselves.
const SMALL_BYTES_MAX: usize = 4096;
/// What the program brings along.
const ARENA_BYTES: usize = 32 << 10;
/// What is mapped when that is used up, again and again.
const CHUNK_BYTES: usize = 64 << 10;
/// Mappings consist of these. Where pages are larger, the kernel rounds up.
const PAGE_BYTES: usize = 4096;

/// Sizes of blocks: sixteen steps of 16 bytes, then four in each doubling.
const CLASSES: usize = 16 + 16;

/// A heap, to be the `#[global_allocator]` of a program.
// In this order, so that what is touched lies side by side.
#[repr(C)]
pub struct SmallHeap {
    state: Mutex<State>,
    /// In units of the alignment.
    arena: UnsafeCell<[u128; ARENA_BYTES / ALIGNMENT]>,
}

const _: () = assert!(align_of::<u128>() == ALIGNMENT);

struct State {
    /// The unused rest of the arena or of the newest chunk.
    rest: *mut u8,
    rest_bytes: usize,
    /// The arena is in use.
    begun: bool,
    /// Freed blocks of each class.
    free: [Option<NonNull<Free>>; CLASSES],
}

/// A freed block holds the way to the next.
struct Free {
    next: Option<NonNull<Free>>,
}

// SAFETY: the pointers lead to memory that belongs to the heap alone, and are
// followed under the lock.
unsafe impl Send for State {}
// SAFETY: the arena is touched only through blocks, each of which is given to
// one owner at a time, under the lock.
unsafe impl Sync for SmallHeap {}

impl SmallHeap {
    /// An empty heap. All its bytes are zero: it costs no room in a program.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        let state =
            State { rest: ptr::null_mut(), rest_bytes: 0, begun: false, free: [None; CLASSES] };
        Self { state: Mutex::new(state), arena: UnsafeCell::new([0; ARENA_BYTES / ALIGNMENT]) }
    }

    /// Nothing panics under the lock, so that it is never found poisoned.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of a class, or null; and whether its bytes are all zero.
    fn take(&self, class: usize) -> (*mut u8, bool) {
        let mut state = self.lock();
        if let Some(block) = state.free[class] {
            // SAFETY: blocks in the list are unused, and begin with a `Free`
            // that was written when they came there.
            state.free[class] = unsafe { block.as_ref() }.next;
            return (block.as_ptr().cast(), false);
        }
        let size = bytes_of(class);
        if !state.begun {
            state.begun = true;
            (state.rest, state.rest_bytes) = (self.arena.get().cast(), ARENA_BYTES);
        }
        if state.rest_bytes < size {
            let chunk = map(CHUNK_BYTES);
            if chunk.is_null() {
                return (chunk, false);
            }
            (state.rest, state.rest_bytes) = (chunk, CHUNK_BYTES);
        }
        let block = state.rest;
        state.rest = block.wrapping_add(size);
        state.rest_bytes -= size;
        (block, true)
    }

    fn give_back(&self, class: usize, block: *mut u8) {
        let Some(block) = NonNull::new(block.cast::<Free>()) else { return };
        let mut state = self.lock();
        // SAFETY: the block is nobody's any more, is of at least 16 bytes and
        // begins at a multiple of 16.
        unsafe { block.write(Free { next: state.free[class] }) };
        state.free[class] = Some(block);
    }
}

/// Where a block of this layout lies.
enum Place {
    Class(usize),
    Mapping(usize),
    /// Nobody asks for such alignment.
    Nowhere,
}

fn place(bytes: usize, alignment: usize) -> Place {
    if alignment > PAGE_BYTES {
        Place::Nowhere
    } else if bytes > SMALL_BYTES_MAX || alignment > ALIGNMENT {
        Place::Mapping(bytes.max(1).next_multiple_of(PAGE_BYTES))
    } else {
        Place::Class(class_of(bytes))
    }
}

/// The smallest class that holds so many bytes.
fn class_of(bytes: usize) -> usize {
    if bytes <= 256 {
        return bytes.max(1).div_ceil(16) - 1;
    }
    // Above 2^power, in steps of a quarter of that.
    let power = (bytes - 1).ilog2() as usize;
    let quarter = (bytes - 1 - (1 << power)) >> (power - 2);
    16 + (power - 8) * 4 + quarter
}

fn bytes_of(class: usize) -> usize {
    if class < 16 {
        return (class + 1) * 16;
    }
    let (power, quarter) = (8 + (class - 16) / 4, (class - 16) % 4);
    (1 << power) + ((quarter + 1) << (power - 2))
}

fn map(bytes: usize) -> *mut u8 {
    // SAFETY: a new mapping at an address of the kernel's choice touches no
    // memory of ours.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED { ptr::null_mut() } else { start.cast() }
}

// SAFETY: blocks come from one owner's hands into another's under the lock,
// never two at once; they are as large and aligned as was asked for (classes
// are multiples of 16 and laid side by side from a multiple of 16 on, mappings
// begin at a page); a block's place follows from its layout alone, which the
// caller gives again when it frees.
unsafe impl GlobalAlloc for SmallHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match place(layout.size(), layout.align()) {
            Place::Class(class) => self.take(class).0,
            Place::Mapping(bytes) => map(bytes),
            Place::Nowhere => ptr::null_mut(),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match place(layout.size(), layout.align()) {
            Place::Class(class) => {
                let (block, fresh) = self.take(class);
                if !fresh && !block.is_null() {
                    // SAFETY: the block is ours, and at least so large.
                    unsafe { block.write_bytes(0, layout.size()) };
                }
                block
            }
            Place::Mapping(bytes) => map(bytes),
            Place::Nowhere => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match place(layout.size(), layout.align()) {
            Place::Class(class) => self.give_back(class, block),
            // SAFETY: a mapping that `alloc` made with the same length, of which
            // the caller uses nothing any more.
            Place::Mapping(bytes) => drop(unsafe { libc::munmap(block.cast(), bytes) }),
            Place::Nowhere => {}
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        match (place(layout.size(), layout.align()), place(bytes, layout.align())) {
            (Place::Class(old), Place::Class(new)) if old == new => return block,
            (Place::Mapping(old), Place::Mapping(new)) if old == new => return block,
            (Place::Mapping(old), Place::Mapping(new)) => {
                // SAFETY: a mapping that `alloc` made with the length `old`; the
                // caller uses the returned address from now on.
                let moved = unsafe { libc::mremap(block.cast(), old, new, libc::MREMAP_MAYMOVE) };
                return if moved == libc::MAP_FAILED { ptr::null_mut() } else { moved.cast() };
            }
            _ => {}
        }
        // SAFETY: the alignment was good before, and `bytes` is not zero and
        // not too large, which the caller vouches for.
        let fresh = unsafe { self.alloc(Layout::from_size_align_unchecked(bytes, layout.align())) };
        if !fresh.is_null() {
            // SAFETY: two different blocks, each at least so large.
            unsafe { ptr::copy_nonoverlapping(block, fresh, layout.size().min(bytes)) };
            // SAFETY: the old block is nobody's any more.
            unsafe { self.dealloc(block, layout) };
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_the_smallest_class_that_holds_it() {
        assert_eq!(bytes_of(CLASSES - 1), SMALL_BYTES_MAX);
        assert_eq!(class_of(0), 0);
        for bytes in 1..=SMALL_BYTES_MAX {
            let class = class_of(bytes);
            assert!(bytes_of(class) >= bytes, "{bytes}");
            assert!(class == 0 || bytes_of(class - 1) < bytes, "{bytes}");
            assert_eq!(bytes_of(class) % ALIGNMENT, 0);
        }
    }

    /// Blocks with their layout, and the byte that each is filled with.
    type Blocks = Vec<(*mut u8, Layout, u8)>;

    fn check(block: *mut u8, bytes: usize, filled: u8) {
        // SAFETY: a block of at least so many bytes, filled by the test.
        let seen = unsafe { std::slice::from_raw_parts(block, bytes) };
        assert!(seen.iter().all(|byte| *byte == filled), "{bytes} bytes of {filled}");
    }

    /// Takes, grows, shrinks and frees blocks of all sizes in an order that
    /// looks like chance.
    fn exercise(heap: &SmallHeap, mut seed: u64) {
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        let mut blocks: Blocks = Vec::new();
        for round in 0..3_000 {
            let fill = round as u8;
            let most = [64, 600, 5000, 70_000][random(4)];
            let (bytes, alignment) =
                (1 + random(most), 1 << random(if most > 5000 { 10 } else { 5 }));
            let layout = Layout::from_size_align(bytes, alignment).unwrap();
            match random(5) {
                0 | 1 if blocks.len() < 200 => {
                    // SAFETY: the layout has a size; the block is filled to that size.
                    let block = unsafe { heap.alloc(layout) };
                    assert!(!block.is_null() && (block as usize).is_multiple_of(alignment));
                    // SAFETY: as above.
                    unsafe { block.write_bytes(fill, bytes) };
                    blocks.push((block, layout, fill));
                }
                2 if blocks.len() < 200 => {
                    // SAFETY: as above.
                    let block = unsafe { heap.alloc_zeroed(layout) };
                    assert!(!block.is_null() && (block as usize).is_multiple_of(alignment));
                    check(block, bytes, 0);
                    // SAFETY: as above.
                    unsafe { block.write_bytes(fill, bytes) };
                    blocks.push((block, layout, fill));
                }
                3 if !blocks.is_empty() => {
                    let index = random(blocks.len());
                    let (block, old, filled) = blocks[index];
                    // SAFETY: a block of the heap with its layout, used no more.
                    let moved = unsafe { heap.realloc(block, old, bytes) };
                    check(moved, bytes.min(old.size()), filled);
                    // SAFETY: the block has now so many bytes.
                    unsafe { moved.write_bytes(filled, bytes) };
                    let layout = Layout::from_size_align(bytes, old.align()).unwrap();
                    blocks[index] = (moved, layout, filled);
                }
                _ if !blocks.is_empty() => {
                    let (block, layout, filled) = blocks.swap_remove(random(blocks.len()));
                    check(block, layout.size(), filled);
                    // SAFETY: a block of the heap with its layout, used no more.
                    unsafe { heap.dealloc(block, layout) };
                }
                _ => {}
            }
        }
        for (block, layout, filled) in blocks {
            check(block, layout.size(), filled);
            // SAFETY: as above.
            unsafe { heap.dealloc(block, layout) };
        }
    }

    #[test]
    fn no_two_blocks_overlap_whatever_is_asked_for_by_many() {
        let heap = Box::leak(Box::new(SmallHeap::new()));
        std::thread::scope(|scope| {
            for seed in 1..=4 {
                let heap = &*heap;
                scope.spawn(move || exercise(heap, seed));
            }
        });
    }

    #[test]
    fn what_is_freed_is_used_again() {
        let heap = Box::leak(Box::new(SmallHeap::new()));
        let layout = Layout::from_size_align(700, 8).unwrap();
        // SAFETY: the layout has a size, and the block is freed with it.
        let first = unsafe { heap.alloc(layout) };
        // SAFETY: as above.
        unsafe { heap.dealloc(first, layout) };
        // SAFETY: as above.
        assert_eq!(unsafe { heap.alloc(layout) }, first);
    }
}
