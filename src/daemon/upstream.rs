//! The main service, as configured.

use std::rc::Rc;

use super::ServeError;
use crate::config::Config;
use crate::io::connect::Connector;
use crate::io::gateway::Gateway;
use crate::io::upstream_link::UpstreamLinks;
use crate::model::upstream::Upstream;
use crate::protocol::peer_url::PeerUrl;

/// What the engine decides by, if there is a main service.
pub(super) fn choice(config: &Config) -> Option<Box<Upstream>> {
    config.upstream.url.as_ref()?;
    let choice = config.upstream.choice.clone();
    // A source of its own takes the place of the main service.
    let has_source = config.broadcasts.url.is_some() || config.broadcasts.file.is_some();
    Some(Box::new(Upstream {
        broadcasts: choice.broadcasts && !has_source,
        ..choice
    }))
}

/// Carries out what the engine wants of the main service.
pub(super) fn begin(gateway: &Rc<Gateway>, config: &Config) -> Result<(), ServeError> {
    let Some(url) = &config.upstream.url else {
        return Ok(());
    };
    let url = PeerUrl::new(&format!("{}/", url.as_str())).map_err(ServeError::Upstream)?;
    let connector = Connector::new(config.upstream.ca.clone());
    let links = UpstreamLinks::new(url, connector);
    gateway.spawn(links.run(Rc::clone(gateway)));
    Ok(())
}
