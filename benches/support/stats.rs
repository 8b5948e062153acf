//! Figures out of samples.

use std::time::Duration;

/// Durations in milliseconds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples {
    values: Vec<f64>,
}

impl Samples {
    pub(crate) fn add(&mut self, duration: Duration) {
        self.add_ms(ms(duration));
    }

    pub(crate) fn add_ms(&mut self, value: f64) {
        self.values.push(value);
    }

    pub(crate) fn extend(&mut self, others: impl IntoIterator<Item = Self>) {
        self.values.extend(others.into_iter().flat_map(|it| it.values));
    }

    pub(crate) const fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.percentile(99)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / float(self.values.len())
    }

    /// The smallest value that so many of a hundred do not exceed. Not a number without samples.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The middle one of a few figures.
pub(crate) fn median(values: &[f64]) -> f64 {
    Samples { values: values.to_vec() }.p50()
}

/// So many per second.
pub(crate) fn per_second(count: usize, within: Duration) -> f64 {
    float(count) / within.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here is far below 2^52")]
pub(crate) const fn float(count: usize) -> f64 {
    count as f64
}
