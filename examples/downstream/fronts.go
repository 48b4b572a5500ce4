package main

// fronts are the caches as Debian packages them, each with the least that makes it
// cache every path, and compress text.
func fronts() []front {
	return []front{
		nginx("nginx", "", ""),
		nginx("nginx, tuned", "proxy_cache_lock on; proxy_cache_background_update on; proxy_cache_revalidate on; proxy_cache_valid any 1m; "+
			"proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504; proxy_http_version 1.1; proxy_set_header Connection '';",
			"`proxy_cache_lock`, `proxy_cache_valid any 1m`, `proxy_cache_revalidate`, `proxy_cache_background_update`, `proxy_cache_use_stale`"),
		varnish(),
		squid(),
		apache("Apache", "", ""),
		apache("Apache, ETags kept", "DeflateAlterETag NoChange", "`DeflateAlterETag NoChange`"),
		trafficServer(),
		haproxy(),
	}
}

func nginx(name, settings, said string) front {
	return front{
		name: name, setting: said,
		command: []string{"nginx", "-e", "stderr", "-p", "{{.Dir}}", "-c", "{{.Dir}}/nginx.conf"},
		version: []string{"nginx", "-v"},
		files: map[string]string{"temp/.keep": "", "nginx.conf": `
daemon off; master_process off; pid {{.Dir}}/pid; error_log stderr crit;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path {{.Dir}}/temp/body; proxy_temp_path {{.Dir}}/temp/proxy;
	fastcgi_temp_path {{.Dir}}/temp/fastcgi; uwsgi_temp_path {{.Dir}}/temp/uwsgi; scgi_temp_path {{.Dir}}/temp/scgi;
	proxy_cache_path {{.Dir}}/cache keys_zone=all:1m;
	gzip on; gzip_types text/plain; gzip_proxied any;
	server {
		listen 127.0.0.1:{{.Port}};
		location / { proxy_pass http://127.0.0.1:{{.Origin}}; proxy_cache all; ` + settings + ` }
	}
}
`},
	}
}

func varnish() front {
	return front{
		name: "Varnish", command: []string{
			"varnishd", "-F", "-n", "{{.Dir}}/run", "-a", "127.0.0.1:{{.Port}}", "-f", "{{.Dir}}/default.vcl",
			"-s", "malloc,64m", "-j", "none",
		},
		version: []string{"varnishd", "-V"},
		files: map[string]string{"default.vcl": `
vcl 4.1;
backend origin { .host = "127.0.0.1"; .port = "{{.Origin}}"; }
sub vcl_backend_response { set beresp.do_gzip = true; }
`},
	}
}

func squid() front {
	return front{
		name: "Squid", command: []string{"squid", "-N", "-f", "{{.Dir}}/squid.conf"},
		version: []string{"squid", "-v"},
		files: map[string]string{"squid.conf": `
http_port 127.0.0.1:{{.Port}} accel defaultsite=shop.example no-vhost
cache_peer 127.0.0.1 parent {{.Origin}} 0 no-query originserver
http_access allow all
cache_mem 32 MB
access_log none
cache_log stdio:/dev/stderr
cache_store_log none
pid_filename none
coredump_dir {{.Dir}}
shutdown_lifetime 0 seconds
netdb_filename none
pinger_enable off
`},
	}
}

func apache(name, settings, said string) front {
	return front{
		name: name, setting: said,
		command: []string{"apache2", "-d", "{{.Dir}}", "-f", "{{.Dir}}/httpd.conf", "-DFOREGROUND"},
		version: []string{"apache2", "-v"},
		files: map[string]string{"cache/.keep": "", "httpd.conf": `
ServerName shop.example
Listen 127.0.0.1:{{.Port}}
PidFile {{.Dir}}/pid
ErrorLog /dev/stderr
LogLevel crit
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule cache_module /usr/lib/apache2/modules/mod_cache.so
LoadModule cache_disk_module /usr/lib/apache2/modules/mod_cache_disk.so
LoadModule filter_module /usr/lib/apache2/modules/mod_filter.so
LoadModule deflate_module /usr/lib/apache2/modules/mod_deflate.so
User nobody
Group nogroup
Mutex posixsem
CacheRoot {{.Dir}}/cache
CacheEnable disk /
CacheQuickHandler off
AddOutputFilterByType DEFLATE text/plain
` + settings + `
ProxyPass / http://127.0.0.1:{{.Origin}}/
`},
	}
}

func trafficServer() front {
	return front{
		name: "Traffic Server", command: []string{"traffic_server"},
		env:     []string{"TS_RUNROOT={{.Dir}}/runroot.yaml"},
		version: []string{"traffic_server", "-V"},
		files: map[string]string{
			"runroot.yaml": `
prefix: {{.Dir}}
exec_prefix: /usr
bindir: /usr/bin
sbindir: /usr/sbin
sysconfdir: {{.Dir}}/etc
datadir: {{.Dir}}/data
includedir: /usr/include
libdir: /usr/lib/trafficserver
libexecdir: /usr/lib/trafficserver/modules
localstatedir: {{.Dir}}
runtimedir: {{.Dir}}/run
logdir: {{.Dir}}/log
cachedir: {{.Dir}}/cache
`,
			"etc/records.config": `
CONFIG proxy.config.http.server_ports STRING {{.Port}}:ip-in=127.0.0.1
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 2
CONFIG proxy.config.http.cache.required_headers INT 0
`,
			"etc/remap.config":   "map / http://127.0.0.1:{{.Origin}}/\n",
			"etc/storage.config": "{{.Dir}}/cache 32M\n",
			"etc/ip_allow.yaml": `
ip_allow:
  - apply: in
    ip_addrs: 127.0.0.1
    action: allow
    methods: ALL
`,
			"etc/plugin.config": "", "run/.keep": "", "log/.keep": "", "cache/.keep": "", "data/.keep": "",
		},
	}
}

func haproxy() front {
	return front{
		name: "HAProxy", command: []string{"haproxy", "-db", "-f", "{{.Dir}}/haproxy.cfg"},
		version: []string{"haproxy", "-v"},
		files: map[string]string{"haproxy.cfg": `
global
	maxconn 1000
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
cache all
	total-max-size 32
	max-object-size 1000000
	max-age 3600
	process-vary on
frontend front
	bind 127.0.0.1:{{.Port}}
	default_backend origin
backend origin
	http-request cache-use all
	http-response cache-store all
	compression algo gzip
	compression type text/plain
	server origin 127.0.0.1:{{.Origin}}
`},
	}
}
