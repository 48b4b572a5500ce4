package httpcache

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

func TestEveryFieldReadOnAHitIsAMemberOfFieldSet(t *testing.T) {
	for _, name := range slices.Concat(conditionalFields, []string{"Upgrade", "Authorization", "Cookie", "Cache-Control", "Pragma", originField}) {
		var names FieldSet
		names.Add(name)
		require.NotZero(t, names, name)
		require.False(t, (^names).has(memberOf(name)), name)
	}
	for _, name := range core.CredentialFields() {
		require.Equal(t, credentialName, memberOf(name), name)
	}
	require.Equal(t, conditionName, memberOf("If-Range"))
}

func TestFieldsThatAreNotReadAreNoMembersOfFieldSet(t *testing.T) {
	var names FieldSet
	for _, name := range []string{"", "A", "Accept", "Accept-Encoding", "Accept-Language", "Dnt", "Host", "Origins", "User-Agent", "X-Request-Id", "if-match"} {
		names.Add(name)
	}
	require.Zero(t, names)
	require.True(t, (^names).has(credentialName|conditionName|originName))
}

func TestARequestOfAnUnknownExchangeMayHaveEveryField(t *testing.T) {
	require.Zero(t, lacking(struct{ Exchange }{}))
	require.True(t, (^FieldSet(0)).has(cookieName))
	require.False(t, (^AllFields).has(cookieName))
}

func TestCredentialsOutsideFieldSetAreReadFromEachRequest(t *testing.T) {
	require.Equal(t, []string{core.ClientCertificate}, others(core.CredentialFields()))
	require.Equal(t, []string{core.ClientCertificate, "X-Own"}, others(append(core.CredentialFields(), "X-Own")))
	require.Empty(t, others([]string{"X-Api-Key"}))
}
