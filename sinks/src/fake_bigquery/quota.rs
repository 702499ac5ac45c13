//! What a project may ask for, and how soon it may ask again.

use std::time::Instant;

use tonic::Status;

/// Calls of which so many may come at once, and so many more each second.
#[derive(Debug)]
pub(super) struct Quota {
    most: f64,
    each_second: f64,
    left: f64,
    at: Instant,
    /// Calls that were refused.
    pub(super) refused: u64,
}

impl Quota {
    pub(super) fn new(most: u32, each_second: u32) -> Self {
        let (most, each_second) = (f64::from(most), f64::from(each_second));
        Quota { most, each_second, left: most, at: Instant::now(), refused: 0 }
    }

    pub(super) fn take(&mut self, what: &str) -> Result<(), Status> {
        let since = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        self.left = (self.left + since * self.each_second).min(self.most);
        if self.left < 1.0 {
            self.refused += 1;
            return Err(Status::resource_exhausted(format!("Exceeds quota of {what}")));
        }
        self.left -= 1.0;
        Ok(())
    }
}
