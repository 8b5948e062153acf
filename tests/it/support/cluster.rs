//! The cluster that tests run against: the one that `KUBECONFIG` names.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use supercargo::domain::target::{Access, KubeconfigSource, KubernetesBackend};
use tokio::net::TcpStream;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::engine::required;
use super::proxy::{Connect, Proxy, Stream};
use super::{PATIENCE, eventually, until, within};

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

    /// The address of its API server.
    pub(crate) fn server(&self) -> String {
        self.config.cluster_url.to_string().trim_end_matches('/').to_owned()
    }

    /// Who signs for its API server, as PEM.
    pub(crate) fn ca(&self) -> String {
        let certificates = self.config.root_cert.as_ref().expect("the kubeconfig has a CA");
        certificates.iter().map(|it| pem("CERTIFICATE", it)).collect()
    }

    /// A kubeconfig in which this user comes to it, by this address.
    pub(crate) fn kubeconfig(&self, server: &str, user: Value) -> Value {
        let mut cluster = json!({"server": server});
        if server.starts_with("https") {
            cluster["certificate-authority-data"] = json!(encoded(self.ca().as_bytes()));
        }
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": user}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        })
    }

    /// An account that has these rules in its namespace.
    pub(crate) async fn account(&self, namespace: &str, name: &str, rules: Value) -> Account {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        });
        let account = json!({"metadata": {"name": name}});
        self.make::<Role>(namespace, role).await;
        self.make::<RoleBinding>(namespace, binding).await;
        self.make::<ServiceAccount>(namespace, account).await;
        let account = Account {
            cluster: self.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        // Others than those that clusters make by themselves, which newer ones do not.
        account.issue("first").await;
        account
    }

    pub(crate) async fn make<T>(&self, namespace: &str, document: Value)
    where
        T: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        let api = Api::<T>::namespaced(self.client.clone(), namespace);
        api.create(&PostParams::default(), &serde_json::from_value(document).unwrap())
            .await
            .unwrap();
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

fn encoded(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes)
}

fn pem(what: &str, der: &[u8]) -> String {
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", encoded(der))
}

/// A service account, whose tokens come and go.
pub(crate) struct Account {
    cluster: Cluster,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Account {
    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// As the API server calls it.
    pub(crate) fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// Makes a token under a name.
    pub(crate) async fn issue(&self, token: &str) {
        let secret = json!({
            "metadata": {
                "name": format!("{}-{token}", self.name),
                "annotations": {"kubernetes.io/service-account.name": self.name},
            },
            "type": "kubernetes.io/service-account-token",
        });
        self.cluster.make::<Secret>(&self.namespace, secret).await;
    }

    pub(crate) async fn token(&self, token: &str) -> String {
        let (secrets, name) = (self.secrets(), format!("{}-{token}", self.name));
        until("the token is made", PATIENCE, async || {
            let bytes = secrets.get_opt(&name).await.ok()??.data?.remove("token")?.0;
            Some(String::from_utf8(bytes).unwrap())
        })
        .await
    }

    /// It is worth nothing from now on.
    pub(crate) async fn revoke(&self, token: &str) {
        let name = format!("{}-{token}", self.name);
        self.secrets().delete(&name, &DeleteParams::default()).await.unwrap();
    }
}

/// Signs for a user of the cluster, where its authority is at hand: `SUPERCARGO_TEST_CLUSTER_PKI` names the folder
/// with its `ca.crt` and `ca.key`.
pub(crate) fn client_certificate(subject: &str) -> Option<(String, String)> {
    let Some(pki) = std::env::var_os("SUPERCARGO_TEST_CLUSTER_PKI").map(PathBuf::from) else {
        assert!(!required("kubernetes"), "SUPERCARGO_TEST_CLUSTER_PKI must name a folder");
        eprintln!("skipped: SUPERCARGO_TEST_CLUSTER_PKI names no folder with ca.crt and ca.key");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let openssl = |args: &[&str]| {
        let output =
            Command::new("openssl").args(args).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (ca, key) = (pki.join("ca.crt"), pki.join("ca.key"));
    let (ca, key) = (ca.to_str().unwrap(), key.to_str().unwrap());
    // What has extensions is of version 3.
    std::fs::write(folder.path().join("ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    openssl(&[
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", "key", "-out", "csr",
    ]);
    openssl(&[
        "x509",
        "-req",
        "-in",
        "csr",
        "-CA",
        ca,
        "-CAkey",
        key,
        "-extfile",
        "ext",
        "-set_serial",
        "7",
        "-days",
        "1",
        "-out",
        "crt",
    ]);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    Some((read("crt"), read("key")))
}

/// An authority that has signed for nobody.
pub(crate) fn other_ca() -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crt");
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=other",
            "-keyout",
            "/dev/null",
            "-out",
        ])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(file).unwrap()
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
