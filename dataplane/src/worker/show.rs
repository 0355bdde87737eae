//! Who looks at what passes: captures come and go between two breaths.
//!
//! In: a capture from control, and each frame with its fate. Out: copies, for those who asked.
//! Never: more than a look at an empty list where nobody looks.

use super::Worker;
use crate::addr::PortId;
use crate::buffer::Frame;
use crate::capture::{CAPTURES_MAX, Capture, Fate};
use crate::port::Port;
use crate::sync::Arc;

impl<P: Port> Worker<P> {
    /// Lets one more look. False if [`CAPTURES_MAX`] do already.
    pub fn watch(&mut self, capture: Arc<Capture>) -> bool {
        let room = self.captures.len() < CAPTURES_MAX;
        if room {
            self.captures.push(capture);
        }
        room
    }

    /// Lets one look no more.
    pub fn unwatch(&mut self, capture: &Arc<Capture>) {
        self.captures.retain(|other| !Arc::ptr_eq(other, capture));
    }

    /// Shows a frame to whoever looks.
    #[inline]
    pub(super) fn show(&self, frame: &Frame, ingress: Option<PortId>, fate: impl Into<Fate>) {
        if !self.captures.is_empty() {
            self.show_to_all(frame, ingress, fate.into());
        }
    }

    #[cold]
    fn show_to_all(&self, frame: &Frame, ingress: Option<PortId>, fate: Fate) {
        let bytes = self.pool.bytes(frame);
        for capture in &self.captures {
            capture.see(bytes, frame.offload, ingress, fate);
        }
    }
}
