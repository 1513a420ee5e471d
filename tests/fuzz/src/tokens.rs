//! Names that this gateway has minted, and those that somebody made up.

use arbitrary::Unstructured;
use edgepush::model::dialect::Dialect;
use edgepush::model::ids::{ChannelId, DatabaseId, MessageId, Uaid};
use edgepush::protocol::keyring::{Endpoint, KEY_BYTES, KeyDigest, Keyring, parse_uaid};

pub(crate) fn tokens(bytes: &[u8]) {
    let _ = changed(&mut Unstructured::new(bytes));
    // The same bytes as a text: whatever it opens to is what it was minted for.
    let text = String::from_utf8_lossy(bytes);
    let keyring = keyring(2);
    if let Some(endpoint) = keyring.open_endpoint(&text) {
        assert_eq!(keyring.seal_endpoint(&endpoint), text.trim_end_matches('='));
    }
    let database = DatabaseId([1; 8]);
    if let Some(id) = keyring.open_message(database, &text) {
        assert_eq!(
            keyring.seal_message(database, id),
            text.trim_end_matches('=')
        );
    }
    if let Some(uaid) = parse_uaid(&text) {
        let spelled = uaid.uuid().simple().to_string();
        assert_eq!(parse_uaid(&spelled), Some(uaid));
        if keyring.is_ours(uaid) {
            let (random, _) = uaid.as_bytes().split_first_chunk().expect("16 bytes");
            assert_eq!(keyring.mint_uaid(*random), uaid);
        }
    }
}

fn keyring(keys: u8) -> Keyring {
    let keys: Vec<_> = (1..=keys).map(|key| [key; KEY_BYTES]).collect();
    Keyring::new(&keys).expect("few keys")
}

/// Something that was minted opens, and opens no more when any part of it is changed.
fn changed(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let keyring = keyring(1);
    let database = DatabaseId(u.arbitrary()?);
    let uaid = keyring.mint_uaid(u.arbitrary()?);
    assert!(keyring.is_ours(uaid));
    let restricted: Option<[u8; 4]> = u.arbitrary()?;
    let endpoint = Endpoint {
        database,
        uaid,
        channel: ChannelId::from_bytes(u.arbitrary()?),
        restricted_to: restricted.map(|key| KeyDigest::of(&key)),
        dialect: *u.choose(&[Dialect::WebPush, Dialect::SimplePush])?,
    };
    let token = keyring.seal_endpoint(&endpoint);
    assert_eq!(keyring.open_endpoint(&token), Some(endpoint));
    let id = MessageId::from_i64(u.arbitrary()?);
    let message = keyring.seal_message(database, id);
    assert_eq!(keyring.open_message(database, &message), Some(id));
    for (whole, is_endpoint) in [(token, true), (message, false)] {
        let other = change(&whole, u)?;
        let opens = if is_endpoint {
            keyring.open_endpoint(&other).is_some()
        } else {
            keyring.open_message(database, &other).is_some()
        };
        let same = other.trim_end_matches('=') == whole;
        assert_eq!(opens, same, "{whole} and {other}");
    }
    let bit: u8 = u.arbitrary()?;
    let flipped = u128::from_be_bytes(*uaid.as_bytes()) ^ 1 << (bit & 127);
    assert!(!keyring.is_ours(Uaid::from_bytes(flipped.to_be_bytes())));
    Ok(())
}

fn change(whole: &str, u: &mut Unstructured<'_>) -> arbitrary::Result<String> {
    let mut bytes = whole.as_bytes().to_vec();
    for _ in 0..u.int_in_range(0..=3)? {
        let at = u.choose_index(bytes.len().max(1))?;
        match u.int_in_range(0..=3)? {
            0 => bytes.insert(at.min(bytes.len()), u.arbitrary()?),
            1 if at < bytes.len() => bytes[at] = u.arbitrary()?,
            2 => bytes.truncate(at),
            _ => bytes.push(b'='),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
