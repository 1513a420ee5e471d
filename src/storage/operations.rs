//! What kinds of operations there are: those that write, and those that take room.

use crate::model::store::{StoreOp, UpstreamOp};

/// Whether an operation needs room that it does not give back. The small changes that others make
/// have theirs in the reserve.
pub(super) const fn takes_room(op: &StoreOp) -> bool {
    match op {
        StoreOp::Subscribe { .. }
        | StoreOp::Enqueue { .. }
        | StoreOp::Sleep { .. }
        | StoreOp::Upstream(UpstreamOp::Borrow { .. } | UpstreamOp::Acked { .. }) => true,
        StoreOp::Upstream(
            UpstreamOp::Load
            | UpstreamOp::Returned { .. }
            | UpstreamOp::Lost { .. }
            | UpstreamOp::ToTell { .. }
            | UpstreamOp::Settled { .. },
        )
        | StoreOp::Load { .. }
        | StoreOp::Find { .. }
        | StoreOp::Fetch { .. }
        | StoreOp::Sleepers
        | StoreOp::Unsubscribe { .. }
        | StoreOp::Forget { .. }
        | StoreOp::Disown { .. }
        | StoreOp::Delete(_)
        | StoreOp::Expire { .. }
        | StoreOp::SaveTime { .. }
        | StoreOp::SaveVersions { .. }
        | StoreOp::Woken { .. } => false,
    }
}

/// Whether an operation may change what is kept.
pub(super) const fn is_write(op: &StoreOp) -> bool {
    match op {
        StoreOp::Load { .. }
        | StoreOp::Find { .. }
        | StoreOp::Fetch { .. }
        | StoreOp::Sleepers
        | StoreOp::Upstream(UpstreamOp::Load) => false,
        StoreOp::Subscribe { .. }
        | StoreOp::Unsubscribe { .. }
        | StoreOp::Forget { .. }
        | StoreOp::Disown { .. }
        | StoreOp::Enqueue { .. }
        | StoreOp::Delete(_)
        | StoreOp::Expire { .. }
        | StoreOp::SaveTime { .. }
        | StoreOp::SaveVersions { .. }
        | StoreOp::Sleep { .. }
        | StoreOp::Woken { .. }
        | StoreOp::Upstream(
            UpstreamOp::Borrow { .. }
            | UpstreamOp::Returned { .. }
            | UpstreamOp::Lost { .. }
            | UpstreamOp::ToTell { .. }
            | UpstreamOp::Acked { .. }
            | UpstreamOp::Settled { .. },
        ) => true,
    }
}
