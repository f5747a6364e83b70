#Requires -Version 5.1
<#
.SYNOPSIS
    Installs and starts the sample driver on a test VM, or removes it.

.DESCRIPTION
    Works over PowerShell remoting (WSMan), from Windows PowerShell 5.1 or PowerShell 7. Once, before the first run:

        on the VM, elevated:               Enable-PSRemoting -Force -SkipNetworkProfileCheck
        here, elevated, in a workgroup:    Start-Service WinRM
                                           Set-Item WSMan:\localhost\Client\TrustedHosts -Value testvm -Concatenate

    The VM has to be prepared as docs/windows.md says: test signing on, Secure Boot off.
    This script has been parsed and checked on Linux; it has not been run on Windows yet.

.EXAMPLE
    scripts\deploy.ps1 -ComputerName testvm -Credential (Get-Credential)
    Installs the debug package and starts the driver.

.EXAMPLE
    scripts\deploy.ps1 -ComputerName testvm -Verify
    Does the same with Driver Verifier, which needs a restart of the VM.

.EXAMPLE
    scripts\deploy.ps1 -ComputerName testvm -Remove
    Stops the driver and removes everything that was installed, by this script or by pnputil.
#>
[CmdletBinding(DefaultParameterSetName = 'Install')]
param(
    # The test VM.
    [Parameter(Mandatory)] [string] $ComputerName,
    # An administrator of the VM [default: the current user].
    [pscredential] $Credential,
    # The build to install.
    [ValidateSet('debug', 'release')] [string] $Configuration = 'debug',
    # Turns Driver Verifier on for the driver, and restarts the VM.
    [Parameter(ParameterSetName = 'Install')] [switch] $Verify,
    # Stops and removes the driver instead.
    [Parameter(ParameterSetName = 'Remove', Mandatory)] [switch] $Remove
)

$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

$service = 'conditional_accept'
$root = Split-Path -Parent $PSScriptRoot
$package = Join-Path $root "examples\conditional-accept\driver\target\$Configuration\${service}_package"
$gatectl = Join-Path $root 'target\release\gatectl.exe'

$connect = @{ ComputerName = $ComputerName }
if ($Credential) { $connect.Credential = $Credential }

# Functions for the session on the VM. Programs there set an exit code and throw nothing.
$remote = {
    Set-StrictMode -Version Latest
    $ErrorActionPreference = 'Stop'

    function Invoke-Program {
        param([string] $Program, [string[]] $Arguments, [int[]] $Accept = @(0), [string] $Advice = '')
        # Not `2>&1`: in Windows PowerShell 5.1 the first line of standard error would end the script.
        $output = & $Program @Arguments
        if ($LASTEXITCODE -notin $Accept) {
            throw "$Program $Arguments failed with exit code ${LASTEXITCODE}: $($output -join ' ') $Advice"
        }
    }

    function Get-ImagePath {
        param([string] $Service)
        $key = "HKLM:\SYSTEM\CurrentControlSet\Services\$Service"
        if (Test-Path $key) { (Get-ItemProperty $key).ImagePath }
    }

    function Stop-Driver {
        param([string] $Service)
        $found = Get-Service $Service -ErrorAction SilentlyContinue
        if (-not $found -or $found.Status -eq 'Stopped') { return }
        Invoke-Program sc.exe @('stop', $Service)
        # Stopping closes connections and waits for WSK. A program that has the device open delays it.
        $deadline = (Get-Date).AddSeconds(30)
        while ((Get-Service $Service).Status -ne 'Stopped') {
            if ((Get-Date) -gt $deadline) {
                throw "$Service has not stopped in 30 seconds: close the programs that use its device (gatectl), and retry"
            }
            Start-Sleep -Milliseconds 200
        }
    }

    # Packages in the driver store, which `pnputil /add-driver` put there. A service of theirs runs the image of the store,
    # whatever is copied elsewhere.
    function Remove-StorePackage {
        param([string] $Service)
        $packages = Get-WindowsDriver -Online | Where-Object { (Split-Path -Leaf $_.OriginalFileName) -eq "$Service.inf" }
        foreach ($found in $packages) {
            Write-Host "removing the package $($found.Driver) from the driver store"
            # 3010: done, and a restart is needed.
            Invoke-Program pnputil.exe @('/delete-driver', $found.Driver, '/uninstall', '/force') -Accept 0, 3010
        }
    }

    function Remove-DriverService {
        param([string] $Service)
        if (Get-Service $Service -ErrorAction SilentlyContinue) { Invoke-Program sc.exe @('delete', $Service) }
    }
}

function New-Connection {
    try {
        $session = New-PSSession @connect
    } catch {
        throw "no PowerShell session on ${ComputerName}: $_`n" +
            'Run Enable-PSRemoting on the VM; in a workgroup, add the VM to TrustedHosts here (Get-Help scripts\deploy.ps1).'
    }
    Invoke-Command -Session $session -ScriptBlock $remote
    $session
}

if (-not $Remove) {
    if (-not (Test-Path (Join-Path $package "$service.sys"))) {
        throw "no package in ${package}: run 'cargo make' in examples\conditional-accept\driver first"
    }
    if (-not (Test-Path $gatectl)) {
        throw "no ${gatectl}: run 'cargo build --release -p gatectl' first"
    }
}

$session = New-Connection
try {
    Write-Host "stopping the driver on $ComputerName"
    Invoke-Command -Session $session -ArgumentList $service -ScriptBlock {
        param($service)
        Stop-Driver $service
        Remove-StorePackage $service
    }
    if ($Remove) {
        Invoke-Command -Session $session -ArgumentList $service -ScriptBlock {
            param($service)
            Remove-DriverService $service
            Remove-Item "C:\Windows\System32\drivers\$service.sys" -ErrorAction SilentlyContinue
            Remove-Item "C:\$service" -Recurse -ErrorAction SilentlyContinue
            if ((verifier.exe /querysettings) -match "$service\.sys") {
                # 2: done, and a restart is needed.
                Invoke-Program verifier.exe @('/reset') -Accept 0, 2
                Write-Host 'Driver Verifier is off after the next restart'
            }
        }
        Write-Host 'removed'
        return
    }

    Write-Host "copying the $Configuration package"
    Invoke-Command -Session $session -ArgumentList $service -ScriptBlock {
        param($service)
        New-Item "C:\$service" -ItemType Directory -Force | Out-Null
    }
    Copy-Item "$package\*" -Destination "C:\$service" -ToSession $session -Recurse -Force
    Copy-Item $gatectl -Destination "C:\$service" -ToSession $session -Force

    Invoke-Command -Session $session -ArgumentList $service, $Verify.IsPresent -ScriptBlock {
        param($service, $verify)
        # What the system was started with; the output of bcdedit is translated.
        $options = (Get-ItemProperty HKLM:\SYSTEM\CurrentControlSet\Control).SystemStartOptions
        if ($options -notmatch '\bTESTSIGNING\b') {
            throw "test signing is off: run 'bcdedit /set testsigning on' on the VM and restart it (Secure Boot must be off)"
        }
        Invoke-Program certutil.exe @('-f', '-addstore', 'Root', "C:\$service\WDRLocalTestCert.cer")
        Invoke-Program certutil.exe @('-f', '-addstore', 'TrustedPublisher', "C:\$service\WDRLocalTestCert.cer")

        $image = "C:\Windows\System32\drivers\$service.sys"
        Copy-Item "C:\$service\$service.sys" $image -Force
        # An existing service keeps its Parameters.
        if (-not (Get-Service $service -ErrorAction SilentlyContinue)) {
            Invoke-Program sc.exe @('create', $service, 'type=', 'kernel', 'start=', 'demand', 'binPath=', $image)
        } elseif ((Get-ImagePath $service) -notlike "*\System32\drivers\$service.sys") {
            Invoke-Program sc.exe @('config', $service, 'binPath=', $image)
        }
        # 2: done, and a restart is needed.
        if ($verify) { Invoke-Program verifier.exe @('/standard', '/driver', "$service.sys") -Accept 0, 2 }
    }

    if ($Verify) {
        Write-Host 'restarting the VM: Driver Verifier takes effect then'
        Remove-PSSession $session
        $session = $null
        Restart-Computer @connect -Wait -For PowerShell -Force
        $session = New-Connection
    }

    Invoke-Command -Session $session -ArgumentList $service -ScriptBlock {
        param($service)
        $image = (Get-ImagePath $service) -replace '^\\\?\?\\'
        $expected = (Get-FileHash "C:\$service\$service.sys").Hash
        if ((Get-FileHash $image).Hash -ne $expected) {
            throw "the service would start $image, which is not the image that was copied"
        }
        Invoke-Program sc.exe @('start', $service) -Advice '(577: the signature is not trusted)'
        & "C:\$service\gatectl.exe" status
        if ($LASTEXITCODE -ne 0) { throw "gatectl status failed with exit code $LASTEXITCODE" }
    }
} finally {
    if ($session) { Remove-PSSession $session }
}
