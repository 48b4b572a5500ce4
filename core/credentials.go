package core

import (
	"net/http"
	"slices"
)

// ClientCertificate stands in HTTPPolicy.Credentials for the certificate that a
// client has shown on its TLS connection.
const ClientCertificate = "client certificate"

// CredentialFields returns what HTTPPolicy.Credentials is by default: the request
// fields by which well-known servers, gateways and authenticating proxies are told
// who asks, and ClientCertificate. It is the list to add a field of one's own to.
func CredentialFields() []string { return slices.Clone(credentialFields) }

// credentialFields are in canonical form. Tokens against cross-site requests
// (X-Csrf-Token) are none: they say nothing of who asks that a cookie does not.
var credentialFields = []string{ //nolint:gochecknoglobals // a constant
	ClientCertificate,
	"Proxy-Authorization",              // RFC 9110 section 11.7.2
	"Dpop",                             // RFC 9449
	"Signature",                        // RFC 9421
	"Client-Cert", "Client-Cert-Chain", // RFC 9440
	"X-Api-Key",                         // AWS API Gateway, and the example of OpenAPI
	"Api-Key",                           // Azure
	"Apikey",                            // Kong's key-auth
	"Ocp-Apim-Subscription-Key",         // Azure API Management
	"X-Goog-Api-Key",                    // Google Cloud
	"X-Amz-Security-Token",              // AWS Signature Version 4
	"X-Auth-Token",                      // OpenStack, Spring Session
	"X-Auth-Key",                        // Cloudflare's API
	"X-Access-Token", "X-Session-Token", // as many APIs call a bearer token; Ory Kratos
	"Private-Token", "Job-Token", "Deploy-Token", // GitLab
	"X-Vault-Token", "X-Consul-Token", // HashiCorp
	"X-Shopify-Access-Token",                                                                       // Shopify
	"Cf-Access-Jwt-Assertion", "Cf-Access-Client-Id", "Cf-Access-Client-Secret", "Cf-Access-Token", // Cloudflare Access
	"X-Goog-Iap-Jwt-Assertion", "X-Goog-Authenticated-User-Id", "X-Goog-Authenticated-User-Email", // Google's Identity-Aware Proxy
	"X-Amzn-Oidc-Data", "X-Amzn-Oidc-Identity", "X-Amzn-Oidc-Accesstoken", // AWS load balancers
	"X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Leaf", "X-Amzn-Mtls-Clientcert-Subject", "X-Amzn-Mtls-Clientcert-Serial-Number",
	"X-Ms-Client-Principal", "X-Ms-Client-Principal-Id", "X-Ms-Client-Principal-Name", "X-Ms-Token-Aad-Access-Token", // Azure App Service
	"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token", // oauth2-proxy, Traefik
	"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Preferred-Username", "X-Auth-Request-Access-Token",
	"Remote-User", "Remote-Email", "Remote-Groups", "Remote-Name", // Authelia
	"X-Remote-User", "X-Remote-Group", // Kubernetes
	"X-Webauth-User",                          // Grafana
	"X-Authentik-Username", "X-Authentik-Jwt", // authentik
	"X-Pomerium-Jwt-Assertion", "X-Pomerium-Claim-Email", // Pomerium
	"X-Jwt-Assertion",                                                 // WSO2
	"Tailscale-User-Login",                                            // Tailscale
	"X-Forwarded-Client-Cert",                                         // Envoy, Istio
	"X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", // Traefik
	"Ssl-Client-Cert", "Ssl-Client-Subject-Dn", // ingress-nginx
	"X-Ssl-Client-Cert", "X-Client-Cert", // HAProxy, nginx, as their guides have it
}

// canonicalCredentials returns a copy of a list with canonical names; nil stays nil.
func canonicalCredentials(list []string) []string {
	list = slices.Clone(list)
	for i, name := range list {
		if name != ClientCertificate {
			list[i] = http.CanonicalHeaderKey(name)
		}
	}
	return list
}
