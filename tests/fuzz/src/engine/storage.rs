//! What the storage may reply.

use arbitrary::Unstructured;
use edgepush::model::ids::{ChannelId, MessageId, Uaid};
use edgepush::model::message::{Content, Encoding, Payload, PushMessage, Topic, Ttl, Urgency};
use edgepush::model::store::{
    EnqueueOutcome, Sleeper, StoreError, StoreOp, StoreReply, Subscription, UpstreamOp,
};
use edgepush::model::time::ServiceTime;
use edgepush::model::version::{NewVersion, Version, VersionUpdate};
use edgepush::model::wakeup::Wakeup;

/// Any reply of the right kind.
pub(super) fn reply(op: &StoreOp, u: &mut Unstructured<'_>) -> arbitrary::Result<StoreReply> {
    if u.ratio(1, 10)? {
        let error = [
            StoreError::DiskFull,
            StoreError::ReadOnly,
            StoreError::Corrupt,
            StoreError::Io,
        ];
        return Ok(StoreReply::Failed(*u.choose(&error)?));
    }
    Ok(match op {
        StoreOp::Load { .. } => {
            let mut all = Vec::new();
            for _ in 0..u.int_in_range(0..=4)? {
                all.push(subscription(u)?);
            }
            all.sort_unstable();
            all.dedup_by_key(|subscription| subscription.channel);
            StoreReply::Loaded(all)
        }
        StoreOp::Subscribe { .. } => StoreReply::Subscribed(u.ratio(9, 10)?),
        StoreOp::Find { .. } => StoreReply::Subscription(u.ratio(2, 3)?),
        StoreOp::Enqueue { .. } => StoreReply::Enqueued(*u.choose(&[
            EnqueueOutcome::Kept,
            EnqueueOutcome::Kept,
            EnqueueOutcome::KeptAndRestored,
            EnqueueOutcome::NoSubscription,
            EnqueueOutcome::SubscriptionFull,
            EnqueueOutcome::QueueFull,
            EnqueueOutcome::StoreFull,
        ])?),
        StoreOp::Fetch {
            after, urgency_min, ..
        } => {
            let mut messages = Vec::new();
            // Above all that was read, as a queue whose messages are all urgent enough has them.
            let mut id = after.of(*urgency_min);
            for _ in 0..u.int_in_range(0..=4)? {
                id = MessageId::from_i64(
                    id.as_i64()
                        .saturating_add(1 + i64::from(u.arbitrary::<u8>()?)),
                );
                messages.push(message(id, u)?);
            }
            let more = !messages.is_empty() && u.arbitrary()?;
            StoreReply::Page { messages, more }
        }
        StoreOp::Expire { messages_max, .. } => {
            StoreReply::Expired(u.int_in_range(0..=*messages_max)?)
        }
        StoreOp::Sleepers => {
            let mut all = Vec::new();
            for _ in 0..u.int_in_range(0..=3)? {
                all.push(Sleeper {
                    uaid: Uaid::from_bytes(u.arbitrary()?),
                    wakeup: Wakeup {
                        address: ([10, 0, 0, u.arbitrary()?], u.arbitrary()?).into(),
                        network: None,
                    },
                    is_due: u.arbitrary()?,
                });
            }
            StoreReply::Sleepers(all)
        }
        _ => plain_reply(op),
    })
}

/// The reply of a storage that works and has nothing.
pub(super) fn plain_reply(op: &StoreOp) -> StoreReply {
    match op {
        StoreOp::Load { .. } => StoreReply::Loaded(Vec::new()),
        StoreOp::Subscribe { .. } => StoreReply::Subscribed(true),
        StoreOp::Find { .. } => StoreReply::Subscription(true),
        StoreOp::Enqueue { .. } => StoreReply::Enqueued(EnqueueOutcome::Kept),
        StoreOp::Fetch { .. } => StoreReply::Page {
            messages: Vec::new(),
            more: false,
        },
        StoreOp::Expire { .. } => StoreReply::Expired(0),
        StoreOp::Sleepers => StoreReply::Sleepers(Vec::new()),
        StoreOp::Upstream(UpstreamOp::Load) => StoreReply::Upstream(Box::default()),
        StoreOp::Upstream(UpstreamOp::Borrow { .. }) => StoreReply::Subscribed(true),
        StoreOp::Upstream(
            UpstreamOp::Returned { .. }
            | UpstreamOp::Lost { .. }
            | UpstreamOp::ToTell { .. }
            | UpstreamOp::Acked { .. }
            | UpstreamOp::Settled { .. },
        )
        | StoreOp::Unsubscribe { .. }
        | StoreOp::Disown { .. }
        | StoreOp::Forget { .. }
        | StoreOp::Delete(_)
        | StoreOp::SaveTime { .. }
        | StoreOp::SaveVersions { .. }
        | StoreOp::Sleep { .. }
        | StoreOp::Woken { .. } => StoreReply::Done,
    }
}

fn subscription(u: &mut Unstructured<'_>) -> arbitrary::Result<Subscription> {
    let version: Option<u64> = u.arbitrary()?;
    let spelled: bool = u.arbitrary()?;
    let channel = super::words::channel(u)?;
    Ok(Subscription {
        channel,
        spelling: spelled.then(|| channel.uuid().simple().to_string().into()),
        last_version: version.and_then(Version::new),
        is_restored: u.arbitrary()?,
    })
}

fn message(id: MessageId, u: &mut Unstructured<'_>) -> arbitrary::Result<PushMessage> {
    let topic: bool = u.arbitrary()?;
    let payload = match u.int_in_range(0..=3)? {
        0 => Payload::Empty,
        1 => Payload::Raw(b"raw".to_vec().into()),
        2 => Payload::Encrypted(Content {
            encoding: *u.choose(&[Encoding::Aesgcm, Encoding::Aes128gcm])?,
            encryption: Some("salt=a".into()),
            crypto_key: None,
            body: vec![u.arbitrary()?; usize::from(u.arbitrary::<u8>()?) + 1].into(),
        }),
        _ => Payload::Update(VersionUpdate {
            version: NewVersion::Exact(Version::new(u.arbitrary()?).unwrap_or(Version::MAX)),
            data: None,
        }),
    };
    Ok(PushMessage {
        id,
        channel: ChannelId::from_bytes(*super::words::channel(u)?.as_bytes()),
        received_at: ServiceTime::from_secs(u.arbitrary::<u16>()?.into()),
        ttl: Ttl::from_secs_lowered(u.arbitrary::<u32>()?.into()),
        topic: topic.then(|| Topic::new("topic").ok()).flatten(),
        urgency: *u.choose(&Urgency::ALL)?,
        payload,
    })
}
