//! Names to addresses, by DNS and the hosts file: cached, over TCP where UDP does not do, and for a while from memory where nobody
//! answers. Only addresses that may be called are given out.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use store::Clock;

use super::addresses::may_call;
use crate::{Network, TransportError};

/// The port where nothing names another.
pub(super) const PORT: u16 = 8448;
/// Answers that are cached. A server that federates widely knows some thousands of names.
const CACHE_MAX: u64 = 16_384;
/// That there is no such name is believed for no longer.
const NEGATIVE_MAX: Duration = Duration::from_secs(600);
/// How long an address serves on while name servers do not answer.
const STALE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Names whose last addresses are remembered. Beyond it all are forgotten.
const REMEMBERED_MAX: usize = 16_384;
/// Targets of one service that are tried, and addresses of one name.
const TARGETS_MAX: usize = 8;

/// Looks names up.
pub(super) struct Names {
    resolver: TokioResolver,
    allowed: Vec<Network>,
    clock: Arc<dyn Clock>,
    remembered: Mutex<HashMap<String, (Vec<SocketAddr>, Duration)>>,
    rng: Mutex<StdRng>,
}

/// A target of a service.
struct Target {
    priority: u16,
    weight: u16,
    port: u16,
    host: String,
}

impl Names {
    /// By the servers of this configuration.
    ///
    /// # Errors
    /// Where it names none that can be used.
    pub(super) fn new(
        mut builder: ResolverBuilder<TokioRuntimeProvider>,
        allowed: Vec<Network>,
        clock: Arc<dyn Clock>,
        rng: &mut StdRng,
    ) -> Result<Self, NetError> {
        let options = builder.options_mut();
        options.cache_size = CACHE_MAX;
        options.try_tcp_on_error = true;
        options.negative_max_ttl = Some(NEGATIVE_MAX);
        let (remembered, rng) = (Mutex::default(), Mutex::new(StdRng::from_rng(rng)));
        Ok(Self { resolver: builder.build()?, allowed, clock, remembered, rng })
    }

    /// The addresses of a host, with this port.
    pub(super) async fn host(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, TransportError> {
        let found = self.resolver.lookup_ip(absolute(host)).await;
        let found: Vec<_> = match found {
            Ok(found) => found.iter().take(TARGETS_MAX).map(|address| SocketAddr::new(address, port)).collect(),
            Err(error) => {
                let stale = self.stale(host, &error)?;
                return Ok(stale.into_iter().map(|address| SocketAddr::new(address.ip(), port)).collect());
            }
        };
        self.remember(host, &found);
        Ok(found)
    }

    /// The targets of a service of a host, in the order to try them ("RFC 2782").
    async fn service(&self, service: &str, host: &str) -> Result<Vec<Target>, NetError> {
        let found = match self.resolver.srv_lookup(absolute(&format!("{service}.{host}"))).await {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let target = |data: &RData| match data {
            RData::SRV(srv) => Some(Target {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                host: srv.target.to_ascii().trim_end_matches('.').to_owned(),
            }),
            _ => None,
        };
        let mut targets: Vec<_> = found.answers().iter().filter_map(|record| target(&record.data)).collect();
        let mut rng = self.rng.lock();
        // Among those of one priority a heavier one comes first more often.
        targets.sort_by_cached_key(|target| {
            let draw = f64::from(target.weight.max(1)).recip() * -rng.random_range(f64::MIN_POSITIVE..1.0).ln();
            (target.priority, (draw * 1e6) as u64)
        });
        targets.truncate(TARGETS_MAX);
        Ok(targets)
    }

    /// Where the server of a name without a port is: steps 3.3 to 3.5, and 4 to 6.
    async fn served(&self, host: &str) -> Result<Vec<SocketAddr>, TransportError> {
        for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
            let key = format!("{service}.{host}");
            let targets = match self.service(service, host).await {
                Ok(targets) if targets.is_empty() => continue,
                Ok(targets) => targets,
                Err(error) => match self.stale(&key, &error) {
                    Ok(stale) => return Ok(stale),
                    Err(_) => continue,
                },
            };
            let mut addresses = Vec::new();
            // A lone target of the name "." says that there is no such service here.
            for target in targets.iter().filter(|target| !target.host.is_empty()) {
                addresses.extend(self.host(&target.host, target.port).await.unwrap_or_default());
            }
            self.remember(&key, &addresses);
            return if addresses.is_empty() { Err(TransportError::NoAddress(key)) } else { Ok(addresses) };
        }
        self.host(host, PORT).await
    }

    /// Leaves out what must not be called. Where nothing remains, it says why.
    fn allowed(&self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, TransportError> {
        let first = addresses.first().map(SocketAddr::ip);
        let allowed: Vec<_> = addresses.into_iter().filter(|address| may_call(address.ip(), &self.allowed)).collect();
        match first {
            Some(first) if allowed.is_empty() => Err(TransportError::ForbiddenAddress(first)),
            None => Err(TransportError::NoAddress("no records".to_owned())),
            Some(_) => Ok(allowed),
        }
    }

    fn remember(&self, name: &str, addresses: &[SocketAddr]) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(name.to_owned(), (addresses.to_vec(), self.clock.elapsed()));
    }

    /// The last addresses, where name servers fail. That they say there is no such name is no failure.
    fn stale(&self, name: &str, error: &NetError) -> Result<Vec<SocketAddr>, TransportError> {
        let now = self.clock.elapsed();
        let stale = self.remembered.lock().get(name).filter(|(_, since)| now.saturating_sub(*since) < STALE_MAX).cloned();
        match stale.filter(|_| !error.is_no_records_found()) {
            Some((addresses, _)) => Ok(addresses),
            None => Err(TransportError::NoAddress(error.to_string())),
        }
    }
}

/// A name that no search domain is added to.
fn absolute(host: &str) -> String {
    format!("{}.", host.trim_end_matches('.'))
}

/// For connections to a host whose port the URL names.
pub(super) struct ByHost(pub(super) Arc<Names>);

/// For connections to a server of a name without a port: the URL has none, and DNS says which.
pub(super) struct ByService(pub(super) Arc<Names>);

impl Resolve for ByHost {
    fn resolve(&self, name: Name) -> Resolving {
        let names = Arc::clone(&self.0);
        Box::pin(async move {
            let addresses = names.allowed(names.host(name.as_str(), 0).await?)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

impl Resolve for ByService {
    fn resolve(&self, name: Name) -> Resolving {
        let names = Arc::clone(&self.0);
        Box::pin(async move {
            let addresses = names.allowed(names.served(name.as_str()).await?)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
