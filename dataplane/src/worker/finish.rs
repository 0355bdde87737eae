//! The last room's workshop: frames made ready for a port that cannot take them as they are.
//!
//! In: a frame with a checksum or segmentation undone, and a port that takes only finished ones; or
//! an IPv4 packet that is longer than the port's MTU, and may be cut.
//! Out: the frame, or its pieces, at that port; each exit counted, each extra piece `copied`.
//! Never: leaves a trace in the frame: after a flood, other ports take it as it came.

use super::Worker;
use crate::addr::PortId;
use crate::buffer::Frame;
use crate::fragment::Fragments;
use crate::frame::Kind;
use crate::frame::offload::Offload;
use crate::port::{Port, Taken};
use crate::segment::{Cut, checksum_at, complete};
use crate::tables::Tables;
use crate::verdict::{DropReason, Rewrite};

impl<P: Port> Worker<P> {
    /// Completes or cuts, and sends what comes of it.
    #[cold]
    pub(super) fn finish(&mut self, frame: &mut Frame, egress: PortId) {
        let offload = frame.offload;
        if !offload.is_super_frame() {
            return self.send_completed(frame, egress);
        }
        match Cut::plan(self.pool.bytes(frame), offload) {
            Ok(cut) if cut.pieces() > 1 => self.send_pieces(frame, &cut, egress),
            Ok(_) => self.send_completed(frame, egress),
            Err(reason) => self.board.dropped(egress, reason),
        }
    }

    /// The checksum is put in where the frame lies, and taken out again.
    fn send_completed(&mut self, frame: &mut Frame, egress: PortId) {
        let undone = std::mem::replace(&mut frame.offload, Offload::NONE);
        let bytes = self.pool.bytes_mut(frame);
        let at = checksum_at(undone);
        let partial: Option<[u8; 2]> = bytes.get(at..).and_then(|b| b.first_chunk()).copied();
        match complete(bytes, undone) {
            Ok(()) => self.transmit_at_once(frame, egress),
            Err(reason) => self.board.dropped(egress, reason),
        }
        if let Some(partial) = partial.filter(|_| undone.needs_checksum()) {
            self.pool.bytes_mut(frame)[at..at + 2].copy_from_slice(&partial);
        }
        frame.offload = undone;
    }

    /// The bytes change again right after, so a port that would take them later has no later.
    fn transmit_at_once(&mut self, frame: &mut Frame, egress: PortId) {
        if self.transmit(frame, egress) == Taken::Later {
            self.flush_port(egress);
        }
    }

    /// One piece after the other, all in the same slot.
    fn send_pieces(&mut self, frame: &Frame, cut: &Cut, egress: PortId) {
        let Some(mut piece) = self.pool.take() else {
            return self.board.dropped(egress, DropReason::PoolEmpty);
        };
        self.board.copied(cut.pieces() as u64 - 1);
        for index in 0..cut.pieces() {
            let (from, into) = self.pool.pair(frame, &piece);
            let len = cut.write(from, index, into);
            piece.set_len(len);
            self.transmit_at_once(&mut piece, egress);
        }
        self.pool.release(piece);
    }

    /// Edits a packet that is longer than the egress MTU, and sends it in fragments. A super-frame
    /// is cut into its segments first, and then each of them, as the kernel does
    /// (`ip_finish_output_gso`).
    #[cold]
    pub(super) fn send_in_fragments(
        &mut self,
        mut frame: Frame,
        kind: Kind,
        (egress, edits): (PortId, Rewrite),
        tables: &Tables,
    ) {
        if let Err(reason) = self.edit(&mut frame, kind, edits) {
            return self.lose(frame, egress, reason);
        }
        let mtu = tables.port(egress).map_or(0, |row| row.mtu);
        let offload = std::mem::replace(&mut frame.offload, Offload::NONE);
        let sent = if offload.is_super_frame() {
            Cut::plan(self.pool.bytes(&frame), offload)
                .and_then(|cut| self.fragment_pieces(&frame, &cut, egress, mtu))
        } else {
            // The sum is over the whole packet, so it must be there before the packet is not.
            complete(self.pool.bytes_mut(&frame), offload)
                .and_then(|()| self.fragment(&frame, egress, mtu))
        };
        if let Err(reason) = sent {
            self.board.dropped(egress, reason);
        }
        self.pool.release(frame);
    }

    fn fragment_pieces(
        &mut self,
        frame: &Frame,
        cut: &Cut,
        egress: PortId,
        mtu: u16,
    ) -> Result<(), DropReason> {
        let mut piece = self.pool.take().ok_or(DropReason::PoolEmpty)?;
        self.board.copied(cut.pieces() as u64 - 1);
        for index in 0..cut.pieces() {
            let (from, into) = self.pool.pair(frame, &piece);
            let len = cut.write(from, index, into);
            piece.set_len(len);
            if let Err(reason) = self.fragment(&piece, egress, mtu) {
                self.board.dropped(egress, reason);
            }
        }
        self.pool.release(piece);
        Ok(())
    }

    /// One packet, finished but for its length. An error means that nothing of it has left.
    fn fragment(&mut self, packet: &Frame, egress: PortId, mtu: u16) -> Result<(), DropReason> {
        let plan = Fragments::plan(self.pool.bytes(packet), mtu)?;
        let mut piece = self.pool.take().ok_or(DropReason::PoolEmpty)?;
        self.board.copied(plan.pieces() as u64 - 1);
        for index in 0..plan.pieces() {
            let (from, into) = self.pool.pair(packet, &piece);
            let len = plan.write(from, index, into);
            piece.set_len(len);
            self.transmit_at_once(&mut piece, egress);
        }
        self.pool.release(piece);
        Ok(())
    }
}
