//! What becomes of a frame.
/// Why a frame died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// Source is a group.
    SourceIsGroup,
    /// Source is zero.
    SourceIsZero,
}
