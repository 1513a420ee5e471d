//! The only source of randomness.

use ring::rand::{SecureRandom, SystemRandom};

/// For signing, where the cipher library asks for its randomness itself.
pub fn source() -> impl SecureRandom {
    SystemRandom::new()
}

/// Random bytes from the kernel.
///
/// # Panics
///
/// When the kernel has none to give: nothing that is minted without them would be safe.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel's random generator answers once the machine has booted");
    bytes
}
