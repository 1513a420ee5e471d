//! User agents that wait to be woken, so that a restart does not leave them asleep.

use rusqlite::{Connection, Row};

use super::messages;
use crate::model::ids::Uaid;
use crate::model::store::Sleeper;
use crate::model::wakeup::{MobileNetwork, Wakeup};

const ALL: &str = "
    SELECT uaid, address, country, network, part,
        EXISTS (SELECT 1 FROM message WHERE message.uaid = sleeper.uaid)
    FROM sleeper";

/// Writes down how a user agent is woken, in place of what was known before.
pub(super) fn add(connection: &Connection, uaid: Uaid, wakeup: &Wakeup) -> rusqlite::Result<()> {
    let network = wakeup.network.as_ref();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO sleeper (uaid, address, country, network, part)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((
            uaid.as_bytes(),
            wakeup.address.to_string(),
            network.map(|network| &*network.country),
            network.map(|network| &*network.network),
            network.map(|network| &*network.part),
        ))?;
    Ok(())
}

/// Forgets how a user agent is woken.
pub(super) fn remove(connection: &Connection, uaid: Uaid) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM sleeper WHERE uaid = ?1")?
        .execute([uaid.as_bytes()])?;
    Ok(())
}

/// All that sleep, and whether something waits for them.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<Sleeper>> {
    connection
        .prepare_cached(ALL)?
        .query_map((), sleeper)?
        .collect()
}

fn sleeper(row: &Row<'_>) -> rusqlite::Result<Sleeper> {
    let address = row.get_ref(1)?.as_str()?.parse();
    let network = match (row.get(2)?, row.get(3)?) {
        (Some(country), Some(network)) => Some(MobileNetwork {
            country,
            network,
            part: row.get::<_, Option<_>>(4)?.unwrap_or_default(),
        }),
        _ => None,
    };
    Ok(Sleeper {
        uaid: Uaid::from_bytes(row.get(0)?),
        wakeup: Wakeup {
            address: address.map_err(|_| messages::bad_value(1))?,
            network,
        },
        is_due: row.get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::store::{StoreOp, StoreReply};
    use crate::storage::testing::{Folder, enqueue, message, one, subscribe, uaid};

    fn wakeup(address: &str, country: Option<&str>) -> Wakeup {
        Wakeup {
            address: address.parse().unwrap(),
            network: country.map(|country| MobileNetwork {
                country: country.into(),
                network: "07".into(),
                part: "".into(),
            }),
        }
    }

    #[test]
    fn sleepers_are_there_after_a_restart_until_they_are_woken_or_forgotten() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let asleep = |number, wakeup| StoreOp::Sleep {
            uaid: uaid(number),
            wakeup,
        };
        store.apply(vec![
            subscribe(2, 1),
            enqueue(2, message(10, 1)),
            asleep(1, wakeup("192.168.1.5:1", None)),
            asleep(1, wakeup("192.168.1.5:2442", None)),
            asleep(2, wakeup("[fe80::1]:9", Some("214"))),
            asleep(3, wakeup("10.0.0.1:9", None)),
            asleep(4, wakeup("10.0.0.1:9", None)),
            StoreOp::Woken { uaid: uaid(3) },
            StoreOp::Forget { uaid: uaid(4) },
        ]);
        drop(store);
        let (mut store, _) = folder.open();
        let sleeper = |number, wakeup, is_due| Sleeper {
            uaid: uaid(number),
            wakeup,
            is_due,
        };
        let expected = vec![
            sleeper(1, wakeup("192.168.1.5:2442", None), false),
            sleeper(2, wakeup("[fe80::1]:9", Some("214")), true),
        ];
        assert_eq!(
            one(&mut store, StoreOp::Sleepers),
            StoreReply::Sleepers(expected)
        );
    }
}
