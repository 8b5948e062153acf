//! The cluster that tests run against: the one that `KUBECONFIG` names.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use supercargo::domain::target::{Access, KubeconfigSource, KubernetesBackend};
use tokio::net::TcpStream;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::engine::required;
use super::proxy::{Connect, Proxy, Stream};
use super::{eventually, within};

/// Where the tests that need no namespace of their own make their pods.
const NAMESPACE: &str = "supercargo-test";

/// Most tests use it beside others, and some have to have it for themselves.
static SHARED: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

enum Use {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

#[derive(Clone)]
pub(crate) struct Cluster {
    kubeconfig: Kubeconfig,
    config: Config,
    pub(crate) client: Client,
    _use: Arc<Use>,
}

impl Cluster {
    /// The one that is there, or the reason why its tests are skipped.
    pub(crate) async fn find() -> Option<Self> {
        Self::find_for(Use::Shared { _guard: Arc::clone(&SHARED).read_owned().await }).await
    }

    /// While nobody else uses it.
    pub(crate) async fn find_alone() -> Option<Self> {
        Self::find_for(Use::Alone { _guard: Arc::clone(&SHARED).write_owned().await }).await
    }

    async fn find_for(how: Use) -> Option<Self> {
        match Self::connect(how).await {
            Ok(cluster) => Some(cluster),
            Err(why) => {
                let must = required("kubernetes");
                assert!(!must, "the tests of kubernetes must run here, and can't: {why}");
                eprintln!("skipped: no Kubernetes cluster: {why}");
                None
            }
        }
    }

    async fn connect(how: Use) -> Result<Self, String> {
        if std::env::var_os("KUBECONFIG").is_none() {
            return Err("KUBECONFIG names none".to_owned());
        }
        let kubeconfig = Kubeconfig::read().map_err(|it| it.to_string())?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options);
        let config = config.await.map_err(|it| it.to_string())?;
        let client = Client::try_from(config.clone()).map_err(|it| it.to_string())?;
        let cluster = Self { kubeconfig, config, client, _use: Arc::new(how) };
        cluster.client.apiserver_version().await.map_err(|it| it.to_string())?;
        cluster.make_namespace(NAMESPACE).await;
        Ok(cluster)
    }

    /// A namespace that pods can be made in.
    pub(crate) async fn make_namespace(&self, name: &str) {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let namespaces = Api::<Namespace>::all(self.client.clone());
        match namespaces.create(&PostParams::default(), &namespace).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("{error}"),
        }
        eventually("the namespace has its service account", async || {
            let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), name);
            // Without its token a pod is refused.
            let found = accounts.get_opt("default").await.unwrap();
            found.is_some_and(|it| it.secrets.is_some_and(|it| !it.is_empty()))
        })
        .await;
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// As a target would name it, through a proxy.
    pub(crate) fn backend_behind(&self, proxy: &Proxy) -> KubernetesBackend {
        let mut kubeconfig = self.kubeconfig.clone();
        for it in &mut kubeconfig.clusters {
            if let Some(cluster) = &mut it.cluster {
                cluster.server = Some(proxy.host());
            }
        }
        Self::backend_of(&kubeconfig)
    }

    fn backend_of(kubeconfig: &Kubeconfig) -> KubernetesBackend {
        let text = serde_json::to_string(kubeconfig).unwrap();
        KubernetesBackend {
            namespace: Some(NAMESPACE.to_owned()),
            ..KubernetesBackend::over(Access::Kubeconfig {
                source: KubeconfigSource::Content(text.into()),
                context: None,
            })
        }
    }

    /// In front of its API server.
    pub(crate) fn proxy(&self) -> Proxy {
        let url = &self.config.cluster_url;
        let host = url.host().unwrap().to_owned();
        let address = (host.clone(), url.port_u16().unwrap_or(443));
        let mut tls = self.config.rustls_client_config().unwrap();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let name = rustls::pki_types::ServerName::try_from(host).unwrap();
        let connect: Connect = Arc::new(move || {
            let (address, tls, name) = (address.clone(), tls.clone(), name.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                let stream: Box<dyn Stream> = Box::new(tls.connect(name, stream).await?);
                io::Result::Ok(stream)
            }
            .boxed()
        });
        Proxy::start_at_a_port(connect)
    }

    /// As somebody with all rights and no patience does: nobody is asked.
    pub(crate) async fn erase(&self, pod: &str) {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        within("a patch", self.pods().patch(pod, &PatchParams::default(), &patch)).await.ok();
        let params = DeleteParams::default().grace_period(0);
        within("a removal", self.pods().delete(pod, &params)).await.ok();
    }
}

/// The script that stops and starts the parts of the cluster: `SUPERCARGO_TEST_CLUSTER` names it.
pub(crate) struct Control(PathBuf);

impl Control {
    pub(crate) fn find() -> Option<Self> {
        let script = std::env::var_os("SUPERCARGO_TEST_CLUSTER").map(PathBuf::from);
        if script.is_none() {
            assert!(!required("kubernetes"), "SUPERCARGO_TEST_CLUSTER must name the script");
            eprintln!(
                "skipped: SUPERCARGO_TEST_CLUSTER names no script that stops parts of the cluster"
            );
        }
        script.map(Self)
    }

    /// `stop` or `start`, and the component.
    pub(crate) fn run(&self, args: &[&str]) {
        let status = Command::new(&self.0).args(args).status().unwrap();
        assert!(status.success(), "{args:?}");
    }
}
