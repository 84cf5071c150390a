//! Right input made wrong.

use super::Target;

/// Numbers at which things go wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Changes that one input gets at most.
const CHANGES_MAX: u64 = 8;

/// Makes the inputs of a target.
pub(super) struct Mutator<'a> {
    target: &'a Target,
    seeds: &'a [Vec<u8>],
    random: Random,
}

impl<'a> Mutator<'a> {
    pub fn new(target: &'a Target, seeds: &'a [Vec<u8>]) -> Self {
        Self { target, seeds, random: Random(0) }
    }

    /// Input number `number`: the first are the seeds as they are.
    pub fn input(&mut self, number: u64) -> Vec<u8> {
        if let Some(seed) = usize::try_from(number).ok().and_then(|at| self.seeds.get(at)) {
            return seed.clone();
        }
        let name = self.target.name.bytes().fold(0, |hash: u64, byte| {
            hash.wrapping_mul(0x100_0000_01b3).wrapping_add(byte.into())
        });
        self.random = Random(name ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut input = self.seed().to_vec();
        for _ in 0..=self.random.below(CHANGES_MAX) {
            self.change(&mut input);
        }
        input.truncate(self.target.length_max);
        input
    }

    fn seed(&mut self) -> &'a [u8] {
        &self.seeds[self.random.index(self.seeds.len())]
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.index(input.len() + 1);
        match self.random.below(11) {
            0 => self.with_byte(input, |byte, random| *byte ^= 1 << random.below(8)),
            1 => self.with_byte(input, |byte, random| *byte = random.next() as u8),
            2 => self.number(input, at),
            3 => drop(input.drain(self.range(input.len()))),
            4 => {
                let range = self.range(input.len());
                let copy = input[range].to_vec();
                input.splice(at..at, copy);
            }
            5 => {
                let word = self.word();
                input.splice(at..at, word);
            }
            6 => {
                let word = self.word();
                let end = (at + word.len()).min(input.len());
                input.splice(at..end, word);
            }
            7 => {
                let other = self.seed();
                let range = self.range(other.len());
                input.splice(at..at, other[range].iter().copied());
            }
            8 => input.truncate(at),
            9 => {
                let byte = self.random.next() as u8;
                let count = 1 << self.random.below(10);
                input.splice(at..at, std::iter::repeat_n(byte, count));
            }
            _ => self.digits(input),
        }
        input.truncate(self.target.length_max);
    }

    fn with_byte(&mut self, input: &mut [u8], change: impl FnOnce(&mut u8, &mut Random)) {
        if !input.is_empty() {
            let at = self.random.index(input.len());
            change(&mut input[at], &mut self.random);
        }
    }

    /// A number as binary formats have it, in either order of bytes.
    fn number(&mut self, input: &mut [u8], at: usize) {
        let off = self.random.below(3).wrapping_sub(1);
        let number = NUMBERS[self.random.index(NUMBERS.len())].wrapping_add(off);
        let width = 1 << self.random.below(4);
        let little = number.to_le_bytes();
        let big = number.to_be_bytes();
        let bytes = if self.random.below(2) == 0 { &little[..width] } else { &big[8 - width..] };
        for (to, from) in input.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    /// A number as texts have it, in place of another.
    fn digits(&mut self, input: &mut Vec<u8>) {
        let from = self.random.index(input.len().max(1)).min(input.len());
        let Some(first) = input[from..].iter().position(u8::is_ascii_digit) else { return };
        let first = from + first;
        let count = input[first..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = NUMBERS[self.random.index(NUMBERS.len())];
        let text = match self.random.below(4) {
            0 => format!("-{number}"),
            1 => format!("0{number:o}"),
            2 => format!("{number}.5e9"),
            _ => number.to_string(),
        };
        input.splice(first..first + count, text.into_bytes());
    }

    fn word(&mut self) -> Vec<u8> {
        const COMMON: [&[u8]; 8] = [b"", b"\0", b"\n", b"null", b"\"\"", b"[]", b"{}", b"\xff\xfe"];
        let words = self.target.words;
        let at = self.random.index(words.len() + COMMON.len());
        words.get(at).copied().unwrap_or_else(|| COMMON[at - words.len()]).to_vec()
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.random.index(length + 1);
        let most = (length - start).min(1 << self.random.below(12));
        start..start + self.random.index(most + 1)
    }
}

/// splitmix64: small, and good enough to be wrong in many ways.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn index(&mut self, length: usize) -> usize {
        self.below(length.max(1) as u64) as usize
    }
}
