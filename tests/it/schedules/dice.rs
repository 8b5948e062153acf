//! Decisions: drawn from a seed, written down as they are drawn, and played again from what was written.
//!
//! Each decision is a number, and 0 is the plainest choice. So a schedule is shrunk by making its numbers
//! smaller and its list shorter: behind its end everything is 0.

/// A list of decisions, and where it is played.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    tape: Vec<u16>,
    at: usize,
    /// None: what is not on the tape is 0.
    random: Option<u64>,
}

impl Dice {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { tape: Vec::new(), at: 0, random: Some(seed) }
    }

    pub(crate) fn replay(tape: Vec<u16>) -> Self {
        Self { tape, at: 0, random: None }
    }

    /// What was drawn so far.
    pub(crate) fn into_tape(mut self) -> Vec<u16> {
        self.tape.truncate(self.at);
        self.tape
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u16) -> u16 {
        let drawn = if let Some(drawn) = self.tape.get(self.at) {
            drawn % n
        } else {
            let drawn = self.random.as_mut().map_or(0, |it| (next(it) % u64::from(n)) as u16);
            self.tape.push(drawn);
            drawn
        };
        self.at += 1;
        drawn
    }

    /// Yes in `of` of 1,000 cases. No is the plain answer.
    pub(crate) fn chance(&mut self, of: u16) -> bool {
        self.below(1_000) > 999 - of.min(999)
    }

    /// One of them; the first is the plain one.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::from(self.below(u16::try_from(of.len()).unwrap()))]
    }

    /// The index of one of so many.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::from(self.below(u16::try_from(len).unwrap()))
    }
}

/// The generator `SplitMix64`.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut it = *state;
    it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    it ^ (it >> 31)
}
