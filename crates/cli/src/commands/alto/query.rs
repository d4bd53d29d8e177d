//! `caudal alto query`

use std::net::IpAddr;

use anyhow::Context as _;
use caudal_alto::client::{AltoClient, ClientOptions, Directory, Snapshot};
use caudal_alto::types::{CostMode, CostType, Metric, endpoint};
use serde_json::{Map, Value, json};

use super::args::{QueryArgs, What};
use super::show;
use crate::run::{Failure, print_json};

pub(super) async fn run(args: QueryArgs) -> Result<(), Failure> {
    let mut options = ClientOptions::default();
    if let Some(path) = &args.ca {
        let pem = std::fs::read(path).with_context(|| format!("cannot read --ca {}", path.display()))?;
        options = options.with_authorities(pem);
    }
    let metric = Metric::read(&args.metric).map_err(Failure::usage)?;
    let client = AltoClient::new(&args.url, &options).map_err(Failure::usage)?;
    let query =
        Query { directory: client.directory().await?, client, map: args.map, metric, json: args.json };
    match args.what.unwrap_or(What::Directory) {
        What::Directory => query.directory(),
        What::NetworkMap => query.network_map().await,
        What::CostMap => query.cost_map().await,
        What::Pid { addresses } if args.by_server => query.pids_by_server(&addresses).await,
        What::Pid { addresses } => query.pids(&addresses).await,
        What::Cost { src, dsts } if args.by_server => query.costs_by_server(src, &dsts).await,
        What::Cost { src, dsts } => query.costs(src, &dsts).await,
    }
}

struct Query {
    client: AltoClient,
    directory: Directory,
    map: Option<String>,
    metric: Metric,
    json: bool,
}

impl Query {
    async fn maps(&self, metrics: &[Metric]) -> Result<Snapshot, Failure> {
        Ok(self.client.maps(&self.directory, self.map.as_deref(), metrics).await?)
    }

    fn directory(&self) -> Result<(), Failure> {
        if !self.json {
            show::directory(&self.directory);
            return Ok(());
        }
        let resources: Vec<Value> = self
            .directory
            .resources()
            .map(|resource| {
                json!({
                    "id": resource.id, "url": resource.url.as_str(), "media_type": resource.media_type,
                    "accepts": resource.accepts, "uses": resource.uses, "properties": resource.prop_types,
                    "cost_constraints": resource.has_cost_constraints,
                    "cost_types": resource.cost_types.iter().map(show::cost_type).collect::<Vec<_>>(),
                })
            })
            .collect();
        let default = self.directory.network_map(None).ok().map(|resource| &resource.id);
        print_json(&json!({ "default_map": default, "resources": resources }))
    }

    async fn network_map(&self) -> Result<(), Failure> {
        let maps = self.maps(&[]).await?;
        let network = maps.network();
        if !self.json {
            show::network_map(network);
            return Ok(());
        }
        let prefixes = |pid: &caudal_alto::map::Pid| -> Vec<String> {
            let ipv6 = pid.ipv6.iter().map(ToString::to_string);
            pid.ipv4.iter().map(ToString::to_string).chain(ipv6).collect()
        };
        let pids: Map<String, Value> =
            network.pids().iter().map(|pid| (pid.name.to_string(), json!(prefixes(pid)))).collect();
        print_json(&json!({ "map": network.vtag().resource_id, "tag": network.vtag().tag, "pids": pids }))
    }

    async fn cost_map(&self) -> Result<(), Failure> {
        let maps = self.maps(std::slice::from_ref(&self.metric)).await?;
        let Some(costs) = maps.costs().first() else { return Ok(()) };
        if !self.json {
            show::cost_map(costs);
            return Ok(());
        }
        let network = costs.network();
        let row = |src| -> Map<String, Value> {
            let told = network.indices().filter_map(|dst| Some((dst, costs.get(src, dst)?)));
            told.map(|(dst, cost)| (network.name(dst).to_string(), json!(cost))).collect()
        };
        let rows: Map<String, Value> =
            network.indices().map(|src| (network.name(src).to_string(), row(src).into())).collect();
        let (vtag, cost_type) = (network.vtag(), costs.cost_type());
        print_json(&json!({
            "map": vtag.resource_id, "tag": vtag.tag, "metric": cost_type.metric.as_str(),
            "mode": cost_type.mode.as_str(), "unit": cost_type.metric.unit(), "costs": rows,
        }))
    }

    async fn pids(&self, addresses: &[IpAddr]) -> Result<(), Failure> {
        let maps = self.maps(&[]).await?;
        let network = maps.network();
        let found: Vec<_> = addresses
            .iter()
            .map(|ip| {
                let found = network.longest_match(*ip);
                (
                    ip.to_string(),
                    found.map(|(pid, prefix)| (network.name(pid).to_string(), prefix.to_string())),
                )
            })
            .collect();
        if !self.json {
            show::pids(&found);
            return Ok(());
        }
        let entry = |(ip, found): &(String, Option<(String, String)>)| {
            let (pid, prefix) = found.as_ref().map(|(pid, prefix)| (pid, prefix)).unzip();
            (ip.clone(), json!({ "pid": pid, "prefix": prefix }))
        };
        print_json(&found.iter().map(entry).collect::<Map<_, _>>())
    }

    async fn pids_by_server(&self, addresses: &[IpAddr]) -> Result<(), Failure> {
        let told = self.client.endpoint_pids(&self.directory, self.map.as_deref(), addresses).await?;
        let found: Vec<_> =
            addresses.iter().map(|ip| (ip.to_string(), told.get(&endpoint(*ip)).cloned())).collect();
        if self.json {
            let entry = |(ip, pid): &(String, Option<String>)| (ip.clone(), json!({ "pid": pid }));
            return print_json(&found.iter().map(entry).collect::<Map<_, _>>());
        }
        let rows: Vec<_> =
            found.into_iter().map(|(ip, pid)| (ip, pid.map(|pid| (pid, String::new())))).collect();
        show::pids(&rows);
        Ok(())
    }

    async fn costs(&self, src: IpAddr, dsts: &[IpAddr]) -> Result<(), Failure> {
        let maps = self.maps(std::slice::from_ref(&self.metric)).await?;
        let pid = |ip: IpAddr| maps.pid(ip).map(ToString::to_string);
        let rows = dsts.iter().map(|dst| (*dst, pid(*dst), maps.cost(src, *dst))).collect::<Vec<_>>();
        let cost_type =
            maps.costs().first().map_or_else(CostType::routingcost, |costs| costs.cost_type().clone());
        self.show_costs(src, pid(src).as_deref(), &rows, &cost_type)
    }

    async fn costs_by_server(&self, src: IpAddr, dsts: &[IpAddr]) -> Result<(), Failure> {
        let cost_type = CostType { metric: self.metric.clone(), mode: CostMode::Numerical, source: None };
        let told = self.client.endpoint_costs(&self.directory, &cost_type, &[src], dsts).await?;
        let row = told.get(&endpoint(src));
        let cost = |dst: IpAddr| row.and_then(|row| row.get(&endpoint(dst))).copied();
        let rows = dsts.iter().map(|dst| (*dst, None, cost(*dst))).collect::<Vec<_>>();
        self.show_costs(src, None, &rows, &cost_type)
    }

    fn show_costs(
        &self,
        src: IpAddr,
        src_pid: Option<&str>,
        rows: &[show::CostRow],
        cost_type: &CostType,
    ) -> Result<(), Failure> {
        if !self.json {
            show::costs(src, src_pid, rows, cost_type);
            return Ok(());
        }
        let to: Vec<Value> = rows
            .iter()
            .map(|(dst, pid, cost)| json!({ "dst": dst.to_string(), "pid": pid, "cost": cost }))
            .collect();
        print_json(&json!({
            "src": src.to_string(), "pid": src_pid, "metric": cost_type.metric.as_str(),
            "mode": cost_type.mode.as_str(), "unit": cost_type.metric.unit(), "to": to,
        }))
    }
}
