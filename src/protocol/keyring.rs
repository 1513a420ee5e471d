//! Names that need no database: endpoint tokens, UAIDs and message tokens, all under the key file.
//!
//! Owns their layout and their cryptography. Randomness is an argument; files are `io`'s.

use std::cell::Cell;
use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::{aead, digest, hmac};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, DatabaseId, MessageId, Uaid};
use crate::model::upstream::Received;

/// Bytes of one master key.
pub const KEY_BYTES: usize = 32;

/// Most keys in a key file: opening a foreign token tries one at most, a UAID tries each.
pub const KEYS_MAX: usize = 16;

/// The keys of one gateway: the newest mints, all of them open.
pub struct Keyring {
    /// Newest first; never empty.
    keys: Vec<Key>,
    /// The message token that was made last: the answer to an application server and the notification
    /// need the same, one right after the other.
    last: Cell<Option<Made>>,
    /// Message tokens that were made lately, each in the place that its first byte names: most acks bring
    /// one of them back, which takes no cryptography then.
    lately: [Cell<Option<Made>>; LATELY],
}

impl Keyring {
    /// Takes the master keys, oldest first, as the key file lists them.
    ///
    /// # Errors
    ///
    /// [`KeyringError`] when there is none, or more than [`KEYS_MAX`].
    pub fn new(master_keys: &[[u8; KEY_BYTES]]) -> Result<Self, KeyringError> {
        if master_keys.is_empty() || master_keys.len() > KEYS_MAX {
            return Err(KeyringError);
        }
        let keys = master_keys.iter().rev().map(Key::derive).collect();
        Ok(Self {
            keys,
            last: Cell::new(None),
            lately: [const { Cell::new(None) }; LATELY],
        })
    }

    fn newest(&self) -> &Key {
        self.keys.first().expect("`new` takes no empty list")
    }

    /// Makes a UAID of ours from 8 random bytes.
    ///
    /// It looks like a version 4 UUID. The first half is random, the second half authenticates it,
    /// so that it is recognised without a database.
    pub fn mint_uaid(&self, random: [u8; 8]) -> Uaid {
        self.newest().uaid(random)
    }

    /// Whether this gateway minted `uaid`, under any of its keys.
    pub fn is_ours(&self, uaid: Uaid) -> bool {
        let (random, _) = halves(uaid.as_bytes());
        self.keys
            .iter()
            .any(|key| key.uaid(random).as_bytes().ct_eq(uaid.as_bytes()).into())
    }

    /// What proves that a request over HTTP comes from the user agent of this name, which was told it
    /// when it registered: 64 hex digits.
    pub fn secret(&self, uaid: Uaid) -> String {
        self.newest().secret(uaid)
    }

    /// Whether this is the secret of the user agent, under any of the keys.
    pub fn is_secret(&self, uaid: Uaid, secret: &str) -> bool {
        self.keys.iter().any(|key| {
            let expected = key.secret(uaid);
            expected.as_bytes().ct_eq(secret.as_bytes()).into()
        })
    }

    /// What a subscription is called where subscriptions of several user agents have one owner. The
    /// same each time; nobody else can tell whose it is.
    ///
    /// That of an alias has the same [`mark`]: so a ring of gateways is noticed by what comes round.
    pub fn alias(&self, uaid: Uaid, channel: ChannelId) -> ChannelId {
        let mut text = [0; 32];
        text[..16].copy_from_slice(uaid.as_bytes());
        text[16..].copy_from_slice(channel.as_bytes());
        let mut tag: [u8; 16] = prefix(hmac::sign(&self.newest().alias, &text).as_ref());
        if let Some(mark) = mark(channel) {
            tag[..8].copy_from_slice(&mark);
        }
        ChannelId::from_uuid(uuid::Builder::from_custom_bytes(tag).into_uuid())
    }

    /// The token of an endpoint URL, base64url. The same subscription has the same token each time.
    pub fn seal_endpoint(&self, endpoint: &Endpoint) -> String {
        let key = self.newest();
        let mut sealed = endpoint.write();
        let nonce = prefix(hmac::sign(&key.nonce, &sealed).as_ref());

        let mut token = Vec::with_capacity(TOKEN_BYTES_MAX);
        token.push(key.id);
        token.extend_from_slice(&nonce);
        key.seal
            .seal_in_place_append_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(ENDPOINT_LABEL),
                &mut sealed,
            )
            .expect("a plaintext of 57 bytes is within the cipher's limit");
        token.append(&mut sealed);
        BASE64URL_NOPAD.encode(&token)
    }

    /// What an endpoint token was made of; `None` if it is not ours or was changed.
    ///
    /// Padding is tolerated.
    pub fn open_endpoint(&self, token: &str) -> Option<Endpoint> {
        let mut bytes = decode_base64url(token, TOKEN_BYTES_MAX)?;
        let (id, rest) = bytes.split_first_mut()?;
        let (nonce, sealed) = rest.split_first_chunk_mut::<{ aead::NONCE_LEN }>()?;
        // Two keys share an id once in 256 pairs, so each that fits is tried, on a fresh copy.
        self.keys
            .iter()
            .filter(|key| key.id == *id)
            .find_map(|key| {
                let nonce = aead::Nonce::assume_unique_for_key(*nonce);
                let mut copy = sealed.to_vec();
                let plain = key
                    .seal
                    .open_in_place(nonce, aead::Aad::from(ENDPOINT_LABEL), &mut copy)
                    .ok()?;
                Endpoint::read(plain)
            })
    }

    /// The `version` of a notification and the last part of its `Location`: opaque, base64url.
    pub fn seal_message(&self, database: DatabaseId, id: MessageId) -> String {
        let is_this = |made: &Made| (made.database, made.id) == (database, id);
        let made = self.last.get().filter(is_this).unwrap_or_else(|| {
            let token = self.newest().message_token(database, id);
            let made = Made {
                database,
                id,
                token,
            };
            self.lately_made(&token).set(Some(made));
            made
        });
        self.last.set(Some(made));
        BASE64URL_NOPAD.encode(&made.token)
    }

    /// The message behind a token of [`seal_message`](Self::seal_message) under this database;
    /// `None` if it is of another one, or not ours.
    pub fn open_message(&self, database: DatabaseId, token: &str) -> Option<MessageId> {
        let bytes = decode_base64url(token, MESSAGE_TOKEN_BYTES)?;
        let bytes: MessageToken = bytes.try_into().ok()?;
        let is_this =
            |made: &Made| made.database == database && bool::from(made.token.ct_eq(&bytes));
        if let Some(made) = self.lately_made(&bytes).get().filter(is_this) {
            return Some(made.id);
        }
        let (tag, masked) = bytes.split_first_chunk::<TAG_BYTES>()?;
        let masked: [u8; 8] = masked.try_into().ok()?;
        self.keys.iter().find_map(|key| {
            let id = key.mask(tag, masked);
            let id = MessageId::from_i64(i64::from_be_bytes(id));
            // Masked again under this tag, the id is what it was.
            let expected = key.message_tag(database, id);
            bool::from(expected.ct_eq(tag)).then_some(id)
        })
    }

    fn lately_made(&self, token: &MessageToken) -> &Cell<Option<Made>> {
        &self.lately[usize::from(token[0]) % LATELY]
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

/// A key file with no key, or with too many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyringError;

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key file must hold 1 to {KEYS_MAX} keys")
    }
}

impl std::error::Error for KeyringError {}

/// What an endpoint token holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// The database that it was minted under.
    pub database: DatabaseId,
    /// Whose subscription.
    pub uaid: Uaid,
    /// Which of them.
    pub channel: ChannelId,
    /// The VAPID key that may post to it; `None` for any application server.
    pub restricted_to: Option<KeyDigest>,
    /// What its user agent speaks: where the database is lost, nothing else tells what to keep for it.
    pub dialect: Dialect,
}

/// The longest plaintext: database, UAID, channel, digest, dialect.
const PLAIN_BYTES_MAX: usize = 8 + 16 + 16 + DIGEST_BYTES + 1;
/// Key id, nonce, the longest plaintext, tag.
const TOKEN_BYTES_MAX: usize = 1 + aead::NONCE_LEN + PLAIN_BYTES_MAX + TAG_BYTES;
/// Ends the plaintext of a SimplePush user agent's endpoint; that of the usual ones is as short as
/// it can be.
const SIMPLEPUSH_MARK: u8 = 1;
const TAG_BYTES: usize = 16;
const MESSAGE_TOKEN_BYTES: usize = TAG_BYTES + 8;
type MessageToken = [u8; MESSAGE_TOKEN_BYTES];

/// How many message tokens are kept, in 3 KiB: more than wait for an ack at a time on a busy board.
const LATELY: usize = 64;

/// A message token, and what it was made of.
#[derive(Clone, Copy)]
struct Made {
    database: DatabaseId,
    id: MessageId,
    token: MessageToken,
}

impl Endpoint {
    fn write(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(PLAIN_BYTES_MAX + TAG_BYTES);
        plain.extend_from_slice(&self.database.0);
        plain.extend_from_slice(self.uaid.as_bytes());
        plain.extend_from_slice(self.channel.as_bytes());
        if let Some(KeyDigest(digest)) = &self.restricted_to {
            plain.extend_from_slice(digest);
        }
        match self.dialect {
            Dialect::WebPush => {}
            Dialect::SimplePush => plain.push(SIMPLEPUSH_MARK),
        }
        plain
    }

    fn read(plain: &[u8]) -> Option<Self> {
        let (database, rest) = plain.split_first_chunk()?;
        let (uaid, rest) = rest.split_first_chunk()?;
        let (channel, rest) = rest.split_first_chunk()?;
        // A digest has an even number of bytes.
        let (digest, dialect) = match rest {
            [digest @ .., SIMPLEPUSH_MARK] if digest.len() % 2 == 0 => {
                (digest, Dialect::SimplePush)
            }
            digest => (digest, Dialect::WebPush),
        };
        let restricted_to = match digest {
            [] => None,
            _ => Some(KeyDigest(digest.try_into().ok()?)),
        };
        Some(Self {
            database: DatabaseId(*database),
            uaid: Uaid::from_bytes(*uaid),
            channel: ChannelId::from_bytes(*channel),
            restricted_to,
            dialect,
        })
    }
}

/// What a token remembers of a VAPID public key: 128 bits of its SHA-256, enough that nobody finds
/// a second key for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyDigest([u8; DIGEST_BYTES]);

const DIGEST_BYTES: usize = 16;

impl KeyDigest {
    /// Digests a decoded public key, of any length.
    pub fn of(public_key: &[u8]) -> Self {
        Self(prefix(digest::digest(&digest::SHA256, public_key).as_ref()))
    }
}

/// What is derived from one master key. Each purpose has a key of its own.
struct Key {
    /// First byte of a token under this key, so that opening it tries no other.
    id: u8,
    seal: aead::LessSafeKey,
    nonce: hmac::Key,
    uaid: hmac::Key,
    message: hmac::Key,
    mask: hmac::Key,
    secret: hmac::Key,
    alias: hmac::Key,
}

const ENDPOINT_LABEL: &[u8] = b"edgepush endpoint 1";

impl Key {
    fn derive(master: &[u8; KEY_BYTES]) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, master);
        let sub = |label: &[u8]| hmac::sign(&master, label);
        let mac = |label| hmac::Key::new(hmac::HMAC_SHA256, sub(label).as_ref());
        let seal = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, sub(b"seal 1").as_ref())
            .expect("a SHA-256 digest is as long as a ChaCha20 key");
        let [id] = prefix(sub(b"id 1").as_ref());
        Self {
            id,
            seal: aead::LessSafeKey::new(seal),
            nonce: mac(b"nonce 1"),
            uaid: mac(b"uaid 1"),
            message: mac(b"message 1"),
            mask: mac(b"mask 1"),
            secret: mac(b"secret 1"),
            alias: mac(b"alias 1"),
        }
    }

    /// Random half with the version digit, then MAC half with the variant bits (RFC 9562 section 5.4).
    fn uaid(&self, random: [u8; 8]) -> Uaid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        let mac: [u8; 8] = prefix(hmac::sign(&self.uaid, &bytes[..8]).as_ref());
        bytes[8..].copy_from_slice(&mac);
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uaid::from_bytes(bytes)
    }

    /// Of the name in 32 hex digits, as on the main service.
    fn secret(&self, uaid: Uaid) -> String {
        let name = HEXLOWER.encode(uaid.as_bytes());
        HEXLOWER.encode(hmac::sign(&self.secret, name.as_bytes()).as_ref())
    }

    /// The tag of the id, then the id masked by that tag: nobody reads from it how many messages
    /// the gateway has handled.
    fn message_token(&self, database: DatabaseId, id: MessageId) -> MessageToken {
        let tag = self.message_tag(database, id);
        let mut token = [0; MESSAGE_TOKEN_BYTES];
        token[..TAG_BYTES].copy_from_slice(&tag);
        token[TAG_BYTES..].copy_from_slice(&self.mask(&tag, id.as_i64().to_be_bytes()));
        token
    }

    fn message_tag(&self, database: DatabaseId, id: MessageId) -> [u8; TAG_BYTES] {
        let mut text = [0; 16];
        text[..8].copy_from_slice(&database.0);
        text[8..].copy_from_slice(&id.as_i64().to_be_bytes());
        prefix(hmac::sign(&self.message, &text).as_ref())
    }

    /// Masks an id, or unmasks a masked one.
    fn mask(&self, tag: &[u8; TAG_BYTES], id: [u8; 8]) -> [u8; 8] {
        let pad: [u8; 8] = prefix(hmac::sign(&self.mask, tag).as_ref());
        std::array::from_fn(|i| id[i] ^ pad[i])
    }
}

/// What all aliases of one subscription have in common, however many gateways it has passed; `None`
/// for a channel that is no alias. Those are of a version of UUIDs that no user agent makes: RFC 9562
/// leaves it to whoever wants one of their own.
pub fn mark(channel: ChannelId) -> Option<[u8; 8]> {
    let is_alias = channel.uuid().get_version_num() == 8;
    is_alias.then(|| prefix(channel.as_bytes()))
}

/// The first `N` bytes of a digest, which is 32 bytes long.
fn prefix<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes
        .first_chunk()
        .expect("a SHA-256 digest is longer than any part that is taken of it")
}

fn halves(bytes: &[u8; 16]) -> ([u8; 8], [u8; 8]) {
    let bits = u128::from_be_bytes(*bytes);
    // Truncation is the point: the upper and the lower half.
    (
        ((bits >> 64) as u64).to_be_bytes(),
        (bits as u64).to_be_bytes(),
    )
}

/// What is remembered of the name that the main service gave a message.
pub fn received(version: &str) -> Received {
    Received(prefix(
        digest::digest(&digest::SHA256, version.as_bytes()).as_ref(),
    ))
}

/// Decodes base64url, padded or not, of at most `bytes_max` bytes.
pub fn decode_base64url(text: &str, bytes_max: usize) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let chars_max = bytes_max.saturating_mul(4).div_ceil(3);
    if text.len() > chars_max {
        return None;
    }
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

/// Any spelling of a UUID as user agents send it: 32 hex digits, dashed, braced or `urn:uuid:`.
pub fn parse_uaid(text: &str) -> Option<Uaid> {
    let uuid = Uuid::try_parse(text).ok()?;
    Some(Uaid::from_bytes(uuid.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: DatabaseId = DatabaseId(*b"database");

    fn keyring(keys: &[u8]) -> Keyring {
        let keys: Vec<_> = keys.iter().map(|&n| [n; KEY_BYTES]).collect();
        Keyring::new(&keys).unwrap()
    }

    fn endpoint(restricted_to: Option<KeyDigest>) -> Endpoint {
        Endpoint {
            database: DATABASE,
            uaid: keyring(&[1]).mint_uaid(*b"12345678"),
            channel: ChannelId::from_bytes(*b"channelchannelch"),
            restricted_to,
            dialect: Dialect::WebPush,
        }
    }

    #[test]
    fn endpoint_token_opens_to_what_was_sealed() {
        let ring = keyring(&[1]);
        let digest = Some(KeyDigest::of(b"a public key"));
        for (restricted_to, dialect) in [
            (None, Dialect::WebPush),
            (digest, Dialect::WebPush),
            (None, Dialect::SimplePush),
        ] {
            let sealed = Endpoint {
                dialect,
                ..endpoint(restricted_to)
            };
            let token = ring.seal_endpoint(&sealed);
            assert_eq!(ring.open_endpoint(&token), Some(sealed));
            assert_eq!(ring.open_endpoint(&format!("{token}==")), Some(sealed));
            assert_eq!(ring.seal_endpoint(&sealed), token, "stable");
            assert!(token.len() <= 114);
        }
    }

    #[test]
    fn endpoint_token_with_any_bit_changed_does_not_open() {
        let ring = keyring(&[1]);
        let token = ring.seal_endpoint(&endpoint(None));
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = BASE64URL_NOPAD.encode(&changed);
            assert_eq!(ring.open_endpoint(&changed), None, "bit {bit}");
        }
        for short in 0..token.len() {
            assert_eq!(ring.open_endpoint(&token[..short]), None);
        }
    }

    #[test]
    fn garbage_is_no_endpoint_token() {
        let long = "A".repeat(100_000);
        for garbage in ["", "=", "AAAA", "ä", "a/b+", long.as_str()] {
            assert_eq!(keyring(&[1]).open_endpoint(garbage), None);
        }
    }

    #[test]
    fn names_of_an_older_key_stay_good_after_a_new_key_is_added() {
        let (old, both) = (keyring(&[1]), keyring(&[1, 2]));
        let token = old.seal_endpoint(&endpoint(None));
        assert_eq!(both.open_endpoint(&token), Some(endpoint(None)));
        assert_ne!(both.seal_endpoint(&endpoint(None)), token);
        assert!(both.is_ours(old.mint_uaid(*b"12345678")));
        let message = old.seal_message(DATABASE, MessageId::from_i64(7));
        assert_eq!(
            both.open_message(DATABASE, &message),
            Some(MessageId::from_i64(7))
        );
    }

    #[test]
    fn names_of_another_gateway_are_not_ours() {
        let (ours, theirs) = (keyring(&[1]), keyring(&[2]));
        assert!(!ours.is_ours(theirs.mint_uaid(*b"12345678")));
        let token = theirs.seal_endpoint(&endpoint(None));
        assert_eq!(ours.open_endpoint(&token), None);
        let message = theirs.seal_message(DATABASE, MessageId::ZERO);
        assert_eq!(ours.open_message(DATABASE, &message), None);
    }

    #[test]
    fn uaid_looks_like_a_random_uuid_and_a_random_uuid_is_not_ours() {
        let ring = keyring(&[1]);
        let uaid = ring.mint_uaid([0xff; 8]);
        assert!(ring.is_ours(uaid));
        assert_eq!(uaid.uuid().get_version_num(), 4);
        assert_eq!(uaid.uuid().get_variant(), uuid::Variant::RFC4122);
        for bit in 0..128 {
            let other = u128::from_be_bytes(*uaid.as_bytes()) ^ (1 << bit);
            assert!(!ring.is_ours(Uaid::from_bytes(other.to_be_bytes())));
        }
    }

    #[test]
    fn secret_belongs_to_one_user_agent_and_stays_good_after_a_new_key_is_added() {
        let (old, both) = (keyring(&[1]), keyring(&[1, 2]));
        let [uaid, other] = [*b"12345678", *b"87654321"].map(|random| old.mint_uaid(random));
        let secret = old.secret(uaid);
        assert_eq!(secret.len(), 64);
        assert!(old.is_secret(uaid, &secret));
        assert!(both.is_secret(uaid, &secret));
        assert_ne!(both.secret(uaid), secret);
        assert!(!old.is_secret(other, &secret));
        assert!(!keyring(&[2]).is_secret(uaid, &secret));
        for wrong in ["", &secret[1..], &secret.to_uppercase()] {
            assert!(!old.is_secret(uaid, wrong), "{wrong}");
        }
    }

    #[test]
    fn message_token_belongs_to_one_database() {
        let ring = keyring(&[1]);
        let id = MessageId::from_i64(1 << 40);
        let token = ring.seal_message(DATABASE, id);
        assert_eq!(token.len(), 32);
        // Also after a restart, when nothing is known of what was made.
        for ring in [ring, keyring(&[1])] {
            assert_eq!(ring.open_message(DATABASE, &token), Some(id));
            assert_eq!(ring.open_message(DatabaseId(*b"another_"), &token), None);
            assert_eq!(ring.open_message(DATABASE, &token[..31]), None);
            assert_eq!(ring.open_message(DATABASE, ""), None);
        }
    }

    #[test]
    fn each_of_more_message_tokens_than_are_kept_opens_to_its_own_message() {
        let ring = keyring(&[1]);
        let ids = (0..500).map(MessageId::from_i64);
        let sealed: Vec<_> = ids
            .map(|id| (id, ring.seal_message(DATABASE, id)))
            .collect();
        for (id, token) in sealed {
            assert_eq!(ring.open_message(DATABASE, &token), Some(id));
        }
    }

    #[test]
    fn message_token_is_the_same_each_time_whatever_was_sealed_before() {
        let ring = keyring(&[1]);
        let (first, second) = (MessageId::from_i64(1), MessageId::from_i64(2));
        let other = DatabaseId(*b"another_");
        let sealed = [
            (DATABASE, first),
            (DATABASE, first),
            (DATABASE, second),
            (other, second),
            (DATABASE, first),
        ];
        let token = |(database, id)| ring.seal_message(database, id);
        let alone = |(database, id)| keyring(&[1]).seal_message(database, id);
        assert_eq!(sealed.map(token), sealed.map(alone));
    }

    #[test]
    fn message_token_with_any_bit_changed_does_not_open() {
        let ring = keyring(&[1]);
        let token = ring.seal_message(DATABASE, MessageId::from_i64(7));
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = BASE64URL_NOPAD.encode(&changed);
            assert_eq!(ring.open_message(DATABASE, &changed), None, "bit {bit}");
        }
    }

    #[test]
    fn uaid_is_read_in_every_spelling() {
        let plain = "0123456789abcdef0123456789abcdef";
        let uaid = parse_uaid(plain).unwrap();
        for spelling in [
            "01234567-89ab-cdef-0123-456789abcdef",
            "0123456789ABCDEF0123456789ABCDEF",
            "{01234567-89ab-cdef-0123-456789abcdef}",
            "urn:uuid:01234567-89ab-cdef-0123-456789abcdef",
        ] {
            assert_eq!(parse_uaid(spelling), Some(uaid), "{spelling}");
        }
        for garbage in ["", "garbage", &plain[1..]] {
            assert_eq!(parse_uaid(garbage), None);
        }
    }
}
