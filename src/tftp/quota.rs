//! How many uploads a server accepts, and of how many octets in all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The uploads that are stored or under way, and how many there may be.
#[derive(Debug)]
pub(super) struct UploadQuota {
    max_uploads: u64,
    max_octets: u64,
    uploads: AtomicU64,
    octets: AtomicU64,
}

impl UploadQuota {
    pub(super) fn new(max_uploads: u64, max_octets: u64) -> Arc<UploadQuota> {
        Arc::new(UploadQuota {
            max_uploads,
            max_octets,
            uploads: AtomicU64::new(0),
            octets: AtomicU64::new(0),
        })
    }

    pub(super) fn octets_left(&self) -> u64 {
        self.max_octets.saturating_sub(self.octets.load(Relaxed))
    }

    /// Reserves one upload, of no octets so far. `None`: there are too many.
    pub(super) fn reserve(self: &Arc<UploadQuota>) -> Option<Reservation> {
        if self.uploads.load(Relaxed) >= self.max_uploads {
            return None;
        }
        self.uploads.fetch_add(1, Relaxed);
        Some(Reservation {
            quota: Arc::clone(self),
            uploads: 1,
            octets: 0,
        })
    }
}

/// The share of the quota that one transfer uses. Dropped, it gives that back.
#[derive(Debug)]
pub(super) struct Reservation {
    quota: Arc<UploadQuota>,
    uploads: u64,
    octets: u64,
}

impl Reservation {
    /// Changes the number of octets. Whether the quota allows so many.
    pub(super) fn resize(&mut self, octets: u64) -> bool {
        self.quota.octets.fetch_add(octets, Relaxed);
        self.quota.octets.fetch_sub(self.octets, Relaxed);
        self.octets = octets;
        self.quota.octets.load(Relaxed) <= self.quota.max_octets
    }

    /// A reservation for another transfer of the same upload, of which one will
    /// complete: it counts octets only, until it inherits.
    pub(super) fn challenger(&self) -> Reservation {
        Reservation {
            quota: Arc::clone(&self.quota),
            uploads: 0,
            octets: 0,
        }
    }

    /// Takes the place of the transfer that it was made beside.
    pub(super) fn inherit(&mut self, mut old: Reservation) {
        self.uploads += std::mem::take(&mut old.uploads);
    }

    /// The file is stored: what it uses is not given back.
    pub(super) fn keep(mut self) {
        (self.uploads, self.octets) = (0, 0);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.quota.uploads.fetch_sub(self.uploads, Relaxed);
        self.quota.octets.fetch_sub(self.octets, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(quota: &UploadQuota) -> (u64, u64) {
        (quota.uploads.load(Relaxed), quota.octets.load(Relaxed))
    }

    #[test]
    fn a_reservation_gives_back_what_was_not_kept() {
        let quota = UploadQuota::new(2, 100);
        let (mut first, mut second) = (quota.reserve().unwrap(), quota.reserve().unwrap());
        assert!(quota.reserve().is_none());
        assert!(first.resize(60) && !second.resize(50) && second.resize(40));
        assert_eq!(quota.octets_left(), 0);
        drop(second);
        first.keep();
        assert_eq!((used(&quota), quota.octets_left()), ((1, 60), 40));
    }

    #[test]
    fn two_transfers_of_one_upload_count_once_whichever_of_them_remains() {
        let quota = UploadQuota::new(1, 100);
        let mut old = quota.reserve().unwrap();
        old.resize(30);
        drop(old.challenger());
        assert_eq!(used(&quota), (1, 30));
        let mut new = old.challenger();
        new.resize(20);
        new.inherit(old);
        assert_eq!(used(&quota), (1, 20));
        assert!(quota.reserve().is_none());
        drop(new);
        assert_eq!(used(&quota), (0, 0));
    }
}
