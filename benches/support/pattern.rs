//! A log that can be compared byte for byte without being kept.

use anyhow::ensure;

/// The line that a loud container writes, with its end: 115 bytes, as an access log has.
pub(crate) fn line() -> String {
    let text = "203.0.113.7 - - [21/Nov/2026:09:00:00 +0000] \"GET /objects/part-00042.parquet HTTP/1.1\" 200 65536 \"-\" \"curl/8.4.0\"";
    format!("{text:.<114.114}\n")
}

/// Compares what comes with the line, over and over.
#[derive(Debug)]
pub(crate) struct Repeated {
    line: Vec<u8>,
    received: usize,
}

impl Repeated {
    pub(crate) fn new(line: &str) -> Self {
        Self { line: line.as_bytes().to_vec(), received: 0 }
    }

    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            let expected = &self.line[self.received % self.line.len()..];
            let length = expected.len().min(bytes.len());
            let (now, rest) = bytes.split_at(length);
            ensure!(
                now == &expected[..length],
                "the log differs around byte {}: {:?} instead of {:?}",
                self.received,
                String::from_utf8_lossy(now),
                String::from_utf8_lossy(&expected[..length]),
            );
            self.received += length;
            bytes = rest;
        }
        Ok(())
    }

    /// After the end: it was all of it.
    pub(crate) fn finish(&self, lines: usize) -> anyhow::Result<()> {
        let expected = self.line.len() * lines;
        ensure!(self.received == expected, "the log has {} of {expected} bytes", self.received);
        Ok(())
    }
}
