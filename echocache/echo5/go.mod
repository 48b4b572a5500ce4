// Echo v5 is a module of its own, so that the root module does not require two majors of
// Echo, and that nobody who uses Echo v4 has v5's requirements.
module github.com/larderhq/larder/echocache/echo5

go 1.25.0

require (
	github.com/labstack/echo/v5 v5.4.3
	github.com/larderhq/larder v0.0.0
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
)

require (
	github.com/dunglas/httpsfv v1.1.1 // indirect
	github.com/klauspost/compress v1.17.9 // indirect
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/time v0.15.0 // indirect
)

replace github.com/larderhq/larder => ../..
